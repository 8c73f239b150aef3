# A thin ResNet-18 with GroupNorm on scikit-learn's handwritten digits: the optimiser of the paper
# on 1,500 real images that need no download, minutes on two CPU cores. `make demo` trains this
# config and resnet18_nc_1xb2_digits.py. The resnet18_*_1xb2_digits.py files inherit it.
#
#     python tools/make_digits.py data/digits
#     python tools/train.py configs/classification/resnet18_gn_1xb2_digits.py
_base_ = [
    '../_base_/models/resnet_gn.py',
    '../_base_/paper_schedule.py',
    '../_base_/classification_runtime.py',
]
custom_imports = dict(
    imports=['nc_plugins', 'nc_plugins.models.resnet'], allow_failed_imports=False
)

model = dict(
    data_preprocessor=dict(
        num_classes=10,
        mean=[78.8, 78.8, 78.8],  # of the training pixels, 0..255
        std=[89.2, 89.2, 89.2],
        to_rgb=False,  # the images are grey: the three channels are equal
    ),
    backbone=dict(
        # mmpretrain's ResNet_CIFAR (3x3 stem, no max pooling) with a choice of activation.
        type='ResNetAct_CIFAR',
        depth=18,
        stem_channels=16,  # a quarter of the full width, for CPU cores
        base_channels=16,
        norm_cfg=dict(num_groups=8),  # 2 channels a group in the first stage, as at full width
    ),
    head=dict(num_classes=10, in_channels=128),
)

dataset_type = 'CustomDataset'  # one folder per class, in alphabetical order
data_root = 'data/digits/folder'
data_command = 'python -m nc_plugins make-digits data/digits'  # shown when it is missing
pipeline = [
    dict(type='LoadImageFromFile'),
    # The 32x32 files are enlarged 8x8 images, so 16x16 pixels lose no information and take half
    # the time. There is no augmentation.
    dict(type='Resize', scale=(16, 16), interpolation='area'),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=2,
    num_workers=0,  # decoding two small PNG files is faster than a worker process
    persistent_workers=False,  # True is the default of mmpretrain's own train.py
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type=dataset_type, data_root=data_root, data_prefix='train', pipeline=pipeline),
)
val_dataloader = dict(
    batch_size=100,  # affects only the speed
    num_workers=0,
    persistent_workers=False,  # True is the default of mmpretrain's own train.py
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix='val',
        test_mode=True,
        pipeline=pipeline,
    ),
)
val_evaluator = [dict(type='Accuracy', topk=(1,)), dict(type='ValLoss')]
test_dataloader = val_dataloader
test_evaluator = val_evaluator

train_cfg = dict(max_epochs=3)  # 2,250 iterations at a constant lr of 0.01
