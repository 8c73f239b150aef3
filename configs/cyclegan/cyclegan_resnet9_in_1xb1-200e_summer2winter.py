# CycleGAN with InstanceNorm on summer2winter (Yosemite) at 256 pixels: the recipe of horse2zebra on
# other photographs. The cyclegan_resnet9_*_summer2winter.py files inherit it.
#
#     python tools/train.py configs/cyclegan/cyclegan_resnet9_in_1xb1-200e_summer2winter.py
_base_ = './cyclegan_resnet9_in_1xb1-200e_horse2zebra.py'

data_root = 'data/summer2winter_yosemite'  # folders trainA, trainB, testA, testB
# Shown when the folder is missing.
data_command = (
    'curl -LO http://efrosgans.eecs.berkeley.edu/cyclegan/datasets/summer2winter_yosemite.zip '
    '&& unzip summer2winter_yosemite.zip -d data'
)

train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
