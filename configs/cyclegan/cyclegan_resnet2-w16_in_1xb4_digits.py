# CycleGAN with InstanceNorm, thin, on scikit-learn's handwritten digits
_base_ = '../_base_/translation_runtime.py'

model = dict(
    type='CycleGAN',
    generator=dict(
        type='ResNetGenerator',
        num_blocks=2,
        base_channels=16,
        norm_cfg=dict(type='IN', affine=False),
        upsample_cfg=dict(type='deconv'),
    ),
    discriminator=dict(
        type='PatchDiscriminator',
        num_layers=2,
        base_channels=16,
        norm_cfg=dict(type='IN', affine=False),
    ),
    cycle_weight=10.0,
    identity_weight=5.0,
    pool_size=50,
    init_cfg=dict(type='Normal', layer=['Conv2d', 'ConvTranspose2d'], std=0.02),
)

dataset_type = 'UnpairedImages'
data_root = 'data/digits/unpaired'
data_command = 'python tools/make_digits.py data/digits'

train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        folder_A='trainA',
        folder_B='trainB',
        load_size=36,
        crop_size=32,
        flip=False,
    ),
)
val_dataloader = dict(
    batch_size=25,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        folder_A='testA',
        folder_B='testB',
        crop_size=32,
        test_mode=True,
    ),
)
val_evaluator = [
    dict(type='CycleL1'),
    dict(type='DigitsRead', train_folder='data/digits/unpaired/trainB'),
]
test_dataloader = val_dataloader
test_evaluator = val_evaluator

adam = dict(type='Adam', lr=5e-4, betas=(0.5, 0.999))
optim_wrapper = dict(
    constructor='PartsOptimWrapperConstructor',
    generator=dict(optimizer=adam),
    discriminator=dict(optimizer=adam),
)
param_scheduler = dict(
    type='LinearLR', begin=2, end=6, start_factor=1.0, end_factor=0.2, by_epoch=True
)
train_cfg = dict(by_epoch=True, max_epochs=6, val_interval=1)
val_cfg = dict()
test_cfg = dict()
