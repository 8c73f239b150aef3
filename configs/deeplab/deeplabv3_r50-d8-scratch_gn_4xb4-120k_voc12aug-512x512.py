# DeepLabV3 with GroupNorm in backbone, pyramid and heads, from scratch on VOC 2012 + SBD.
# mmsegmentation has DeepLab only with BatchNorm. The
# deeplabv3_r50-d8-scratch_*_4xb4-120k_voc12aug-512x512.py files inherit it.
#
#     python tools/train.py \
#         configs/deeplab/deeplabv3_r50-d8-scratch_gn_4xb4-120k_voc12aug-512x512.py
#
# All variants train from scratch, because pretrained weights exist only for BatchNorm. They train
# for 120k iterations, six times mmseg's 20k after ImageNet: the factor that detectors need from
# scratch (arXiv 1811.08883). Compare the results with each other, not with mmseg's 76.17 mIoU.
#
# 4xb4 means 4 GPUs with 4 images each. On one GPU, --auto-scale-lr divides lr by 4.
#
# Data: data/VOCdevkit/VOC2012 as the VOC archive unpacks (JPEGImages, SegmentationClass,
# ImageSets/Segmentation), with SegmentationClassAug and ImageSets/Segmentation/aug.txt, which
# mmsegmentation's tools/dataset_converters/voc_aug.py makes from SBD. 1,464 + 9,118 images.
#
# Convolutions without a norm slot stay plain in every variant: the predictors decode_head.conv_seg
# and auxiliary_head.conv_seg.
_base_ = '../_base_/segmentation_runtime.py'

crop_size = (512, 512)  # height, width in pixels
num_classes = 21  # background is one of them
norm_cfg = dict(type='GN', num_groups=16)  # 2 channels a group where the stem has 32
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],  # of ImageNet, RGB, 0..255, as in mmseg
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,  # ignored by the loss
        size=crop_size,  # of training batches; validation takes whole images
    ),
    backbone=dict(
        type='ResNetV1c',  # three 3x3 convolutions in the stem
        depth=50,
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),  # d8: the output has an eighth of the input's height and width
        contract_dilation=True,
        out_indices=(0, 1, 2, 3),
        style='pytorch',
        init_cfg=None,  # from scratch, with He initialisation
        # No conv_cfg, here and below: the convolutions are nn.Conv2d.
        norm_cfg=norm_cfg,
        norm_eval=False,  # the BatchNorm variant trains its statistics
        zero_init_residual=False,
    ),
    decode_head=dict(
        type='ASPPHead',
        in_channels=2048,
        in_index=3,
        channels=512,
        dilations=(1, 12, 24, 36),
        dropout_ratio=0.1,
        num_classes=num_classes,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=1024,
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=num_classes,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)

data_root = 'data/VOCdevkit/VOC2012'
scale = (2048, 512)  # longest, shortest side in pixels
train_pipeline = [
    dict(type='LoadImageFromFile'),  # ignore_empty=True continues after a broken file
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=scale, ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations'),  # after Resize: scored at the file's size
    dict(type='PackSegInputs'),
]
voc = dict(
    type='PascalVOCDataset',
    data_root=data_root,
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
    ann_file='ImageSets/Segmentation/train.txt',
    pipeline=train_pipeline,
)
sbd = dict(
    type='PascalVOCDataset',
    data_root=data_root,
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassAug'),
    ann_file='ImageSets/Segmentation/aug.txt',
    pipeline=train_pipeline,
)
train_dataloader = dict(
    batch_size=4,  # per GPU
    num_workers=4,  # processes per GPU
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(type='ConcatDataset', datasets=[voc, sbd]),
)
val_dataloader = dict(
    batch_size=1,  # because the images differ in size
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='PascalVOCDataset',
        data_root=data_root,
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
        ann_file='ImageSets/Segmentation/val.txt',
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = [dict(type='IoUMetric', iou_metrics=['mIoU']), dict(type='ClassIoU')]
test_evaluator = val_evaluator

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0005),  # as mmseg's
)
param_scheduler = [  # in iterations
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='PolyLR', power=0.9, eta_min=1e-4, by_epoch=False, begin=1000, end=120000),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=120000, val_interval=6000)
default_hooks = dict(checkpoint=dict(interval=6000))  # in iterations

# The batch size over all GPUs for which lr was chosen. tools/train.py --auto-scale-lr enables it.
auto_scale_lr = dict(base_batch_size=16, enable=False)
