# A thin DeepLabV3+ with GroupNorm from scratch on scenes of two to five of scikit-learn's
# handwritten digits: 400 images of 128x128 pixels that need no download, minutes on a CPU core. The
# deeplabv3plus_r18-d8_*_1xb2_digits.py files inherit it.
#
#     python tools/make_digits.py data/digits
#     python tools/train.py configs/deeplab/deeplabv3plus_r18-d8_gn_1xb2_digits.py
#
# Plain in every variant are the predictor decode_head.conv_seg and the five depthwise convolutions
# of decode_head (see nc_plugins/models/sep_aspp_head.py). In the NC variant the norm slot behind a
# depthwise convolution is only a gain and a bias.
_base_ = ['../_base_/models/deeplabv3plus_r18-d8_gn.py', '../_base_/segmentation_runtime.py']
custom_imports = dict(
    imports=['nc_plugins', 'nc_plugins.models.sep_aspp_head'], allow_failed_imports=False
)

num_classes = 11
model = dict(
    data_preprocessor=dict(
        mean=[180.3, 181.7, 180.8],  # of the training pixels, RGB, 0..255
        std=[52.3, 52.5, 52.5],
        size=(128, 128),  # of the scenes, height and width in pixels
    ),
    decode_head=dict(
        num_classes=num_classes,
        loss_decode=dict(class_weight=[0.3] + [1.0] * 10),  # 9 pixels in 10 are background
        # mmseg's standard deviation of 0.01 is meant for 512 channels. With 32 channels the ten
        # digits start with almost equal weights, and thousands of iterations pass before the
        # network tells them apart.
        init_cfg=dict(type='Normal', std=0.2, override=dict(name='conv_seg')),
    ),
)

dataset_type = 'BaseSegDataset'
data_root = 'data/digits/voc'
data_command = 'python -m nc_plugins make-digits data/digits'  # shown when it is missing
metainfo = dict(
    classes=('background', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'),
    palette=[
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [128, 128, 0],
        [0, 0, 128],
        [128, 0, 128],
        [0, 128, 128],
        [128, 128, 128],
        [64, 0, 0],
        [192, 0, 0],
        [64, 128, 0],
    ],
)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),  # no flip, because a mirrored digit is not a digit
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
        metainfo=metainfo,
        ann_file='ImageSets/Segmentation/train.txt',
        pipeline=test_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=10,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=folders,
        metainfo=metainfo,
        ann_file='ImageSets/Segmentation/val.txt',
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
    dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=100, end=3000),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=3000, val_interval=500)
default_hooks = dict(
    checkpoint=dict(interval=500),  # in iterations
    # Draws one image of the ten batches at each validation, for the report and TensorBoard.
    visualization=dict(draw=True, interval=100),
)

# The batch size over all GPUs for which lr was chosen. tools/train.py --auto-scale-lr enables it.
auto_scale_lr = dict(base_batch_size=2, enable=False)
