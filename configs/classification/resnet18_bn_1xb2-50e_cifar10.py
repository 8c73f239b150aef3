# resnet18_gn_1xb2-50e_cifar10.py with BatchNorm, whose statistics come from batches of 2 images.
#
#     python tools/train.py configs/classification/resnet18_bn_1xb2-50e_cifar10.py
_base_ = './resnet18_gn_1xb2-50e_cifar10.py'

model = dict(backbone=dict(norm_cfg=dict(_delete_=True, type='BN')))
