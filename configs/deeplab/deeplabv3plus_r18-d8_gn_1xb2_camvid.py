# A thin DeepLabV3+ with GroupNorm from scratch on CamVid at half size: street scenes with 11
# classes, minutes on a CPU core. The deeplabv3plus_r18-d8_*_1xb2_camvid.py files inherit it.
#
#     python tools/train.py configs/deeplab/deeplabv3plus_r18-d8_gn_1xb2_camvid.py
#
# Data: data/camvid laid out as Pascal VOC, with JPEGImages/*.jpg of 480x360 pixels,
# SegmentationClass/*.png with the class indices below and 255 for unlabelled pixels, and
# ImageSets/Segmentation/{train,val}.txt.
#
# Plain in every variant are the predictor decode_head.conv_seg and the five depthwise convolutions
# of decode_head (see nc_plugins/models/sep_aspp_head.py). In the NC variant the norm slot behind a
# depthwise convolution is only a gain and a bias.
_base_ = ['../_base_/models/deeplabv3plus_r18-d8_gn.py', '../_base_/segmentation_runtime.py']
custom_imports = dict(
    imports=['nc_plugins', 'nc_plugins.models.sep_aspp_head'], allow_failed_imports=False
)

crop_size = (160, 160)  # height, width in pixels, of frames at half size
num_classes = 11
model = dict(
    data_preprocessor=dict(
        mean=[92.9, 94.5, 95.6],  # of the training pixels, RGB, 0..255
        std=[74.0, 76.8, 76.3],
        size=crop_size,  # of training batches; validation takes whole frames
    ),
    decode_head=dict(num_classes=num_classes),
)

dataset_type = 'BaseSegDataset'
data_root = 'data/camvid'
# Names in the order of the class indices, and CamVid's colours.
metainfo = dict(
    classes=(
        'sky',
        'building',
        'pole',
        'road',
        'pavement',
        'tree',
        'sign',
        'fence',
        'car',
        'pedestrian',
        'bicyclist',
    ),
    palette=[
        [128, 128, 128],
        [128, 0, 0],
        [192, 192, 128],
        [128, 64, 128],
        [0, 0, 192],
        [128, 128, 0],
        [192, 128, 128],
        [64, 64, 128],
        [64, 0, 128],
        [64, 64, 0],
        [0, 128, 192],
    ],
)
scale = (240, 180)  # width, height in pixels: half of the files', for CPU cores
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=scale, ratio_range=(0.9, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    # After Resize, so the scores refer to the size of the files.
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
folders = dict(img_path='JPEGImages', seg_map_path='SegmentationClass')
train_dataloader = dict(
    batch_size=2,
    num_workers=0,  # loading takes a tenth of the time
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=folders,
        ann_file='ImageSets/Segmentation/train.txt',
        metainfo=metainfo,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=3,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=folders,
        ann_file='ImageSets/Segmentation/val.txt',
        metainfo=metainfo,
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = [dict(type='IoUMetric', iou_metrics=['mIoU']), dict(type='ClassIoU')]
test_evaluator = val_evaluator

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.01))
param_scheduler = [  # in iterations
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='PolyLR', eta_min=0.0, power=0.9, by_epoch=False, begin=100, end=2500),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=2500, val_interval=500)
default_hooks = dict(checkpoint=dict(interval=500))  # in iterations

# The batch size over all GPUs for which lr was chosen. tools/train.py --auto-scale-lr enables it.
auto_scale_lr = dict(base_batch_size=2, enable=False)
