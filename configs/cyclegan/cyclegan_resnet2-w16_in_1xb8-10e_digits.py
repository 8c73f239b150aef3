# A thin CycleGAN with InstanceNorm between two styles of scikit-learn's handwritten digits: chalk
# on slate (A) and blue ink on paper (B). 750 + 750 real images of 32 pixels that need no download,
# minutes on a CPU core. The cyclegan_resnet2-w16_*_digits.py files inherit it.
#
#     python tools/make_digits.py data/digits
#     python tools/train.py configs/cyclegan/cyclegan_resnet2-w16_in_1xb8-10e_digits.py
_base_ = ['../_base_/models/cyclegan_in.py', '../_base_/translation_runtime.py']

model = dict(
    # A quarter of the full width, for CPU cores.
    generator=dict(num_blocks=2, base_channels=16),
    # The receptive field is 34 x 34 pixels, more than a whole digit.
    discriminator=dict(num_layers=2, base_channels=16),
    # The identity loss asks a generator to leave an image of its target domain as it is. Here one
    # domain is light on dark and the other dark on light: with the paper's weight of 5 both
    # generators learn first to change nothing, and then to produce the negative of the digit.
    identity_weight=0.0,
)

dataset_type = 'UnpairedImages'
data_root = 'data/digits/unpaired'  # folders trainA, trainB, testA, testB
data_command = 'python -m nc_plugins make-digits data/digits'  # shown when it is missing

train_dataloader = dict(
    # The paper uses 1. No norm here depends on the batch, and 8 images use a CPU core better.
    batch_size=8,
    num_workers=0,  # decoding small images is faster than a worker process
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        folder_A='trainA',
        folder_B='trainB',
        load_size=36,  # pixels
        crop_size=32,
        flip=False,  # a mirrored 2 is not a digit
    ),
)
val_dataloader = dict(
    batch_size=25,  # affects only the speed
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
    # Whether the digit is still readable: a classifier trained on B reads translations of A.
    dict(type='DigitsRead', train_folder=f'{data_root}/trainB'),
]
test_dataloader = val_dataloader
test_evaluator = val_evaluator

# The paper's lr for batch 1 is 2e-4.
adam = dict(type='Adam', lr=5e-4, betas=(0.5, 0.999))
optim_wrapper = dict(
    constructor='PartsOptimWrapperConstructor',
    generator=dict(optimizer=adam),  # of both generators, A -> B and B -> A
    discriminator=dict(optimizer=adam),
)
# 5 epochs at lr, then 5 epochs in equal steps towards 0, the value of epoch 11.
param_scheduler = dict(
    type='LinearLR', begin=4, end=10, start_factor=1.0, end_factor=1 / 6, by_epoch=True
)
train_cfg = dict(by_epoch=True, max_epochs=10, val_interval=1)  # epochs of 94 iterations
val_cfg = dict()
test_cfg = dict()
