# A thin CycleGAN with InstanceNorm between streets by day and at dusk: 102 and 62 frames of CamVid
# at 128 x 96 pixels, 816 iterations, for one CPU core. It differs from horse2zebra's recipe in
# widths, sizes and schedule. lr is higher because the training is short.
#
#     python tools/train.py configs/cyclegan/cyclegan_resnet4-w24_in_1xb1-8e_day2dusk.py
_base_ = './cyclegan_resnet9_in_1xb1-200e_horse2zebra.py'

model = dict(
    generator=dict(num_blocks=4, base_channels=24),
    # The receptive field is 34 x 34 pixels.
    discriminator=dict(num_layers=2, base_channels=24),
)

data_root = 'data/camvid_day2dusk'  # folders trainA, trainB, testA, testB
data_command = None  # any two folders of images work

train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    # (height, width) in pixels; the files have 288 x 384
    dataset=dict(data_root=data_root, load_size=(108, 144), crop_size=(96, 128)),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, crop_size=(96, 128)),
)
test_dataloader = val_dataloader

adam = dict(lr=5e-4)
optim_wrapper = dict(generator=dict(optimizer=adam), discriminator=dict(optimizer=adam))
# 4 epochs at lr, then 4 epochs in equal steps towards 0.
param_scheduler = dict(begin=3, end=8, end_factor=1 / 5)
train_cfg = dict(max_epochs=8, val_interval=4)  # epochs of 102 iterations
