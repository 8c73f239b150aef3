# ResNet-50 with GroupNorm on Tiny ImageNet: the baseline of arXiv 2005.05274, Table 1. The paper
# reports a top-1 error of 51.01 %, and 49.82 % with NC. The resnet50_*_1xb2-50e_tiny-imagenet.py
# files inherit it.
#
#     python tools/train.py configs/classification/resnet50_gn_1xb2-50e_tiny-imagenet.py
#
# Data: data/tiny_imagenet/{train,val}/<class>/*, which this command writes from the download:
#     python tools/convert_tiny_imagenet.py tiny-imagenet-200.zip data/tiny_imagenet
# To read another folder of that layout, add
#     --cfg-options train_dataloader.dataset.data_root=DIR
#                   val_dataloader.dataset.data_root=DIR test_dataloader.dataset.data_root=DIR
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
        num_classes=200,
        mean=[123.675, 116.28, 103.53],  # of ImageNet, RGB, 0..255
        std=[58.395, 57.12, 57.375],
        to_rgb=True,  # LoadImageFromFile returns BGR
    ),
    # mmpretrain's ResNet with a choice of activation. The paper does not describe its stem. This
    # is the usual one (7x7 at stride 2, max pooling): it reduces 64x64 pixels to 16x16.
    backbone=dict(type='ResNetAct', depth=50),
    head=dict(num_classes=200, in_channels=2048, topk=(1, 5)),
)

dataset_type = 'CustomDataset'  # one folder per class, in alphabetical order
data_root = 'data/tiny_imagenet'
data_command = (  # shown when the folder is missing
    'python -m nc_plugins convert-tiny-imagenet tiny-imagenet-200.zip data/tiny_imagenet'
)
# The images keep their 64x64 pixels. There is no augmentation, in training either.
pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=2,
    num_workers=2,  # processes that decode JPEG files
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type=dataset_type, data_root=data_root, data_prefix='train', pipeline=pipeline),
)
val_dataloader = dict(
    batch_size=100,  # affects only the speed
    num_workers=2,
    persistent_workers=True,
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
val_evaluator = [dict(type='Accuracy', topk=(1, 5)), dict(type='ValLoss')]
test_dataloader = val_dataloader  # the labels of the test split are not public
test_evaluator = val_evaluator
