# ResNet-18 with GroupNorm on CIFAR-10: the baseline of arXiv 2005.05274, Table 1. The paper reports
# a top-1 error of 10.14 %, and 8.52 % with NC. The resnet18_*_1xb2-50e_cifar10.py files inherit it.
#
#     python tools/train.py configs/classification/resnet18_gn_1xb2-50e_cifar10.py
#
# CIFAR-10 is downloaded into data/cifar10 (170 MB). To read class folders instead
# (DIR/{train,test}/<class>/*.jpg or *.png), add
#     --cfg-options train_dataloader.dataset.data_root=DIR
#                   val_dataloader.dataset.data_root=DIR test_dataloader.dataset.data_root=DIR
_base_ = [
    '../_base_/models/resnet_gn.py',
    '../_base_/paper_schedule.py',
    '../_base_/classification_runtime.py',
]
custom_imports = dict(
    imports=['nc_plugins', 'nc_plugins.models.resnet', 'nc_plugins.datasets.cifar10'],
    allow_failed_imports=False,
)

model = dict(
    data_preprocessor=dict(
        num_classes=10,
        mean=[125.307, 122.961, 113.8575],  # of the training pixels, RGB, 0..255
        std=[51.5865, 50.847, 51.255],
        to_rgb=False,  # CIFAR10Folders returns RGB
    ),
    # mmpretrain's ResNet_CIFAR (3x3 stem, no max pooling) with a choice of activation.
    backbone=dict(type='ResNetAct_CIFAR', depth=18),
    head=dict(num_classes=10, in_channels=512),
)

dataset_type = 'CIFAR10Folders'
data_root = 'data/cifar10'
train_pipeline = [
    # The paper shifts images by up to 10 %, which is 3.2 pixels of 32. A 32x32 crop of an image
    # with 3 pixels of padding shifts it by -3 to 3 pixels.
    dict(type='RandomCrop', crop_size=32, padding=3, pad_val=0),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=2,
    # The images are decoded and in memory, so a worker process would cost more than it saves.
    num_workers=0,
    persistent_workers=False,  # True is the default of mmpretrain's own train.py
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type=dataset_type, data_root=data_root, split='train', pipeline=train_pipeline),
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
        split='test',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
val_evaluator = [dict(type='Accuracy', topk=(1,)), dict(type='ValLoss')]
test_dataloader = val_dataloader  # CIFAR-10 has no third split
test_evaluator = val_evaluator
