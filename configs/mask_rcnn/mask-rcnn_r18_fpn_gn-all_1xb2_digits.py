# A thin Mask R-CNN, with GroupNorm wherever the model has a norm slot, on scenes of two to five of
# scikit-learn's handwritten digits: 400 images of 128x128 pixels that need no download, minutes on
# two CPU cores. The mask-rcnn_r18_fpn_*-all_1xb2_digits.py files inherit it.
#
#     python tools/make_digits.py data/digits
#     python tools/train.py configs/mask_rcnn/mask-rcnn_r18_fpn_gn-all_1xb2_digits.py
#
# Convolutions without a norm slot stay plain in every variant: rpn_head.rpn_conv, the predictors
# rpn_head.rpn_cls, rpn_head.rpn_reg and roi_head.mask_head.conv_logits, and the 2x2 deconvolution
# roi_head.mask_head.upsample.
_base_ = '../_base_/detection_runtime.py'

norm_cfg = dict(type='GN', num_groups=8)  # 2 channels a group in the stem, as at full width
model = dict(
    type='MaskRCNN',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],  # mmdet's values; the scenes have colours
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_mask=True,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type='ResNet',
        depth=18,
        base_channels=16,  # a quarter of the full width, for CPU cores
        num_stages=3,  # a fourth stage would have 4x4 pixels
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(0, 1, 2),
        frozen_stages=-1,  # from scratch
        init_cfg=None,
        # No conv_cfg, here and below: the convolutions are nn.Conv2d.
        norm_cfg=norm_cfg,
        norm_eval=False,  # the BatchNorm variant trains its statistics
        zero_init_residual=False,
        style='pytorch',
    ),
    neck=dict(type='FPN', in_channels=[16, 32, 64], out_channels=32, num_outs=3, norm_cfg=norm_cfg),
    rpn_head=dict(
        type='RPNHead',
        in_channels=32,
        feat_channels=32,
        anchor_generator=dict(
            type='AnchorGenerator',
            scales=[7],  # times the stride: 28 pixels; the median digit has 24x38
            ratios=[1.5, 2.5],  # height / width; up to 3.7 for the digit 1
            strides=[4, 8, 16],
        ),
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder',
            target_means=[0.0, 0.0, 0.0, 0.0],
            target_stds=[1.0, 1.0, 1.0, 1.0],
        ),
        loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0),
        loss_bbox=dict(type='L1Loss', loss_weight=1.0),
    ),
    roi_head=dict(
        type='StandardRoIHead',
        bbox_roi_extractor=dict(
            type='SingleRoIExtractor',
            roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=2),
            out_channels=32,
            featmap_strides=[4, 8],  # objects below 112 pixels, here all, come from stride 4
        ),
        bbox_head=dict(
            type='Shared4Conv1FCBBoxHead',
            in_channels=32,
            conv_out_channels=32,
            fc_out_channels=128,
            roi_feat_size=7,
            num_classes=10,
            norm_cfg=norm_cfg,
            bbox_coder=dict(
                type='DeltaXYWHBBoxCoder',
                target_means=[0.0, 0.0, 0.0, 0.0],
                target_stds=[0.1, 0.1, 0.2, 0.2],
            ),
            reg_class_agnostic=False,
            loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
            loss_bbox=dict(type='L1Loss', loss_weight=1.0),
        ),
        mask_roi_extractor=dict(
            type='SingleRoIExtractor',
            roi_layer=dict(type='RoIAlign', output_size=14, sampling_ratio=2),
            out_channels=32,
            featmap_strides=[4, 8],
        ),
        mask_head=dict(
            type='FCNMaskHead',
            num_convs=4,
            in_channels=32,
            conv_out_channels=32,
            num_classes=10,
            norm_cfg=norm_cfg,
            loss_mask=dict(type='CrossEntropyLoss', use_mask=True, loss_weight=1.0),
        ),
    ),
    # mmdet's settings for Mask R-CNN, with fewer proposals and samples for two to five objects.
    train_cfg=dict(
        rpn=dict(
            assigner=dict(
                type='MaxIoUAssigner',
                pos_iou_thr=0.7,
                neg_iou_thr=0.3,
                min_pos_iou=0.3,
                match_low_quality=True,
                ignore_iof_thr=-1,
            ),
            sampler=dict(
                type='RandomSampler',
                num=64,
                pos_fraction=0.5,
                neg_pos_ub=-1,
                add_gt_as_proposals=False,
            ),
            allowed_border=-1,
            pos_weight=-1,
            debug=False,
        ),
        rpn_proposal=dict(
            nms_pre=200,
            max_per_img=100,
            nms=dict(type='nms', iou_threshold=0.7),
            min_bbox_size=0,
        ),
        rcnn=dict(
            assigner=dict(
                type='MaxIoUAssigner',
                pos_iou_thr=0.5,
                neg_iou_thr=0.5,
                min_pos_iou=0.5,
                match_low_quality=True,
                ignore_iof_thr=-1,
            ),
            sampler=dict(
                type='RandomSampler',
                num=32,
                pos_fraction=0.25,
                neg_pos_ub=-1,
                add_gt_as_proposals=True,
            ),
            mask_size=28,
            pos_weight=-1,
            debug=False,
        ),
    ),
    test_cfg=dict(
        rpn=dict(
            nms_pre=200,
            max_per_img=50,
            nms=dict(type='nms', iou_threshold=0.7),
            min_bbox_size=0,
        ),
        rcnn=dict(
            score_thr=0.05,
            nms=dict(type='nms', iou_threshold=0.5),
            max_per_img=20,
            mask_thr_binary=0.5,
        ),
    ),
)

dataset_type = 'CocoDataset'
data_root = 'data/digits/coco/'
data_command = 'python -m nc_plugins make-digits data/digits'  # shown when it is missing
metainfo = dict(classes=('0', '1', '2', '3', '4', '5', '6', '7', '8', '9'))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs'),  # no flip, because a mirrored digit is not a digit
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(128, 128), keep_ratio=True),  # only sets scale_factor
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=0,  # decoding small PNG files is faster than a worker process
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='train/'),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='val/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(
    type='CocoMetric',
    ann_file=data_root + 'annotations/instances_val.json',
    metric=['bbox', 'segm'],
    classwise=True,
)
test_dataloader = val_dataloader
test_evaluator = val_evaluator

max_epochs = 5  # epochs of 200 iterations
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0001),
    paramwise_cfg=dict(norm_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(
        type='MultiStepLR',
        begin=0,
        end=max_epochs,
        by_epoch=True,
        milestones=[4],
        gamma=0.1,
    ),
]
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=1)  # in epochs
# Draws one of the 100 images at each validation, for the report and TensorBoard.
default_hooks = dict(visualization=dict(draw=True, interval=100))
val_cfg = dict()
test_cfg = dict()

# The batch size over all GPUs for which lr was chosen. tools/train.py --auto-scale-lr enables it.
auto_scale_lr = dict(base_batch_size=2, enable=False)
