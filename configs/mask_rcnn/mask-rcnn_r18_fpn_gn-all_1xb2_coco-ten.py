# Mask R-CNN R18-FPN with GroupNorm on ten COCO images, long side 320 pixels, trained until it has
# learnt them and evaluated on the same ten: that the recipe can fit real photographs, and how fast,
# on two CPU cores. It says nothing about generalisation. The model is that of
# mask-rcnn_r50-scratch_fpn_gn-all_6x_coco.py but for depth, widths and counts.
#
#     python tools/train.py configs/mask_rcnn/mask-rcnn_r18_fpn_gn-all_1xb2_coco-ten.py
#
# data/coco_tiny has COCO's layout; a link to a complete COCO serves as well, with ten other images.
_base_ = './mask-rcnn_r50-scratch_fpn_gn-all_6x_coco.py'

norm_cfg = dict(num_groups=16)  # 2 channels a group in the stem, as 32 groups of 64
model = dict(
    backbone=dict(depth=18, base_channels=32, norm_cfg=norm_cfg),  # half the width
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64, norm_cfg=norm_cfg),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        anchor_generator=dict(scales=[4]),  # times the stride: 16 to 256 pixels
    ),
    roi_head=dict(
        # finest_scale halved with the images: above 56 pixels comes from stride 8, and so on.
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
    dict(type='LoadImage'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(320, 320), keep_ratio=True),
    dict(type='PackDetInputs'),  # no flip: the ten as they are
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(320, 320), keep_ratio=True),
    dict(
        type='PackDetInputs',
        # 'instances' is the ground truth that CocoMetric without an ann_file evaluates on.
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'instances'),
    ),
]
ten = dict(
    type='CocoDataset',
    data_root=data_root,
    ann_file='annotations/instances_train2017.json',
    data_prefix=dict(img='train2017/'),
    # Not filtered, so that training and evaluation count the same first ten; all have objects.
    indices=10,
)
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        _delete_=True,
        type='RepeatDataset',  # an epoch is 100 iterations
        times=20,
        dataset=dict(**ten, pipeline=train_pipeline),
    ),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(_delete_=True, **ten, test_mode=True, pipeline=test_pipeline),
)
# ann_file=None: with the file, the images beyond the ten would count as missed.
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
auto_scale_lr = dict(base_batch_size=2)  # the lr above belongs to batch 2
