# A thin ResNet-18 with GroupNorm on a tenth of CIFAR-10, for two CPU cores: 500 training and 100
# test images per class, 6 epochs. docs/results compares its variants. The recipe is otherwise that
# of the config it inherits. The resnet18-w16_*_1xb2-6e_cifar10-5k.py files inherit it.
#
#     python tools/train.py configs/classification/resnet18-w16_gn_1xb2-6e_cifar10-5k.py
#
# Data: data/cifar10-5k/{train,test}/<class>/*.jpg. If the folder is missing, CIFAR-10 is downloaded
# into it, and the first 500 (100) images of each class are used.
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

# The schedule divides lr every 30 epochs, so it stays at 0.01.
train_cfg = dict(max_epochs=6)
