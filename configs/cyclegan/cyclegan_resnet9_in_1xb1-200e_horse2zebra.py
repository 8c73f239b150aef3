# CycleGAN (arXiv 1703.10593) with InstanceNorm on horse2zebra at 256 pixels: the authors' recipe.
# The cyclegan_resnet9_*_horse2zebra.py files inherit it.
#
#     python tools/train.py configs/cyclegan/cyclegan_resnet9_in_1xb1-200e_horse2zebra.py
_base_ = ['../_base_/models/cyclegan_in.py', '../_base_/translation_runtime.py']

dataset_type = 'UnpairedImages'
data_root = 'data/horse2zebra'  # folders trainA, trainB, testA, testB
# Shown when the folder is missing.
data_command = (
    'curl -LO http://efrosgans.eecs.berkeley.edu/cyclegan/datasets/horse2zebra.zip '
    '&& unzip horse2zebra.zip -d data'
)

train_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        folder_A='trainA',
        folder_B='trainB',
        load_size=286,  # pixels
        crop_size=256,
        flip=True,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        folder_A='testA',
        folder_B='testB',
        crop_size=256,
        test_mode=True,
    ),
)
val_evaluator = [
    dict(type='CycleL1'),
    # FID and KID require a file with the Inception weights of torch-fidelity:
    # dict(
    #     type='InceptionDistance', weights='checkpoints/pt_inception-2015-12-05-6726825d.pth'
    # ),
]
test_dataloader = val_dataloader
test_evaluator = val_evaluator

adam = dict(type='Adam', lr=2e-4, betas=(0.5, 0.999))
optim_wrapper = dict(
    constructor='PartsOptimWrapperConstructor',
    generator=dict(optimizer=adam),  # of both generators, A -> B and B -> A
    discriminator=dict(optimizer=adam),
)
# 100 epochs at lr, then 100 epochs in equal steps towards 0, the value of epoch 201.
param_scheduler = dict(
    type='LinearLR', begin=99, end=200, start_factor=1.0, end_factor=1 / 101, by_epoch=True
)
train_cfg = dict(by_epoch=True, max_epochs=200, val_interval=10)  # in epochs
val_cfg = dict()
test_cfg = dict()
