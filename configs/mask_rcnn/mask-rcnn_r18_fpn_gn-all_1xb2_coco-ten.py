# Mask R-CNN R18-FPN with GroupNorm, trained and evaluated on the same ten COCO images with a long
# side of 320 pixels, for two CPU cores. It shows whether and how fast the recipe fits real
# photographs, not how well it generalises. The model is that of
# mask-rcnn_r50-scratch_fpn_gn-all_6x_coco.py with another depth, width and number of regions.
#
#     python tools/train.py configs/mask_rcnn/mask-rcnn_r18_fpn_gn-all_1xb2_coco-ten.py
#
# Data: data/coco_tiny with COCO's layout. A link to a complete COCO works too, with ten other
# images.
_base_ = './mask-rcnn_r50-scratch_fpn_gn-all_6x_coco.py'

norm_cfg = dict(num_groups=16)  # 2 channels a group in the stem, as at full width
model = dict(
    backbone=dict(depth=18, base_channels=32, norm_cfg=norm_cfg),  # half the width
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64, norm_cfg=norm_cfg),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        anchor_generator=dict(scales=[4]),  # times the stride: 16 to 256 pixels
    ),
    roi_head=dict(
        # Half of mmdet's finest_scale, as the images: objects above 56 pixels come from stride 8.
        bbox_roi_extractor=dict(out_channels=64, finest_scale=28),
        bbox_head=dict(
            in_channels=64, conv_out_channels=64, fc_out_channels=256, norm_cfg=norm_cfg
        ),
        mask_roi_extractor=dict(out_channels=64, finest_scale=28),
        mask_head=dict(in_channels=64, conv_out_channels=64, norm_cfg=norm_cfg),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=500, max_per_img=200),
        rcnn=dict(sampler=dict(num=64)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=200)),
)

data_root = 'data/coco_tiny/'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(320, 320), keep_ratio=True),
    dict(type='PackDetInputs'),  # no flip, because evaluation uses the same images
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(320, 320), keep_ratio=True),
    dict(
        type='PackDetInputs',
        # Without an ann_file, CocoMetric takes the ground truth from 'instances'.
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'instances'),
    ),
]
ten = dict(
    type='CocoDataset',
    data_root=data_root,
    ann_file='annotations/instances_train2017.json',
    data_prefix=dict(img='train2017/'),
    # No filter_cfg, so training and evaluation use the same ten images.
    indices=10,
)
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        _delete_=True,
        type='RepeatDataset',  # for an epoch of 100 iterations
        times=20,
        dataset=dict(**ten, pipeline=train_pipeline),
    ),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(_delete_=True, **ten, test_mode=True, pipeline=test_pipeline),
)
# With an ann_file, the metric would count the objects of all other images as missed.
val_evaluator = dict(ann_file=None)
test_dataloader = val_dataloader
test_evaluator = val_evaluator

max_epochs = 8
train_cfg = dict(max_epochs=max_epochs, val_interval=2)  # in epochs
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[7], gamma=0.1),
]
auto_scale_lr = dict(base_batch_size=2)
