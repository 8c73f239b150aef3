# A thin ResNet-18 with GroupNorm on a tenth of CIFAR-10, for two CPU cores: the comparison of
# docs/results. 6 epochs, 500 training and 100 test images a class; the recipe is otherwise the
# one it inherits. The twins resnet18-w16_*_1xb2-6e_cifar10-5k.py inherit it.
#
#     python tools/train.py configs/classification/resnet18-w16_gn_1xb2-6e_cifar10-5k.py
#
# Reads data/cifar10-5k/{train,test}/<class>/*.jpg where that is there. Otherwise CIFAR-10
# downloads itself into data/cifar10-5k and its first 500 (100) images a class are taken.
_base_ = './resnet18_gn_1xb2-50e_cifar10.py'

model = dict(
    backbone=dict(
        stem_channels=16,
        base_channels=16,
        norm_cfg=dict(num_groups=8),  # 2 channels a group in the first stage, as at full width
    ),
    head=dict(in_channels=128),
)

data_root = 'data/cifar10-5k'
train_dataloader = dict(dataset=dict(data_root=data_root, per_class=500))
val_dataloader = dict(dataset=dict(data_root=data_root, per_class=100))
test_dataloader = val_dataloader

# x0.1 every 30 epochs is kept to the letter, so it never comes: 6 epochs at a constant 0.01.
train_cfg = dict(max_epochs=6)
