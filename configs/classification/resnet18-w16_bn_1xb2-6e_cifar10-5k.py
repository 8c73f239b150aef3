# resnet18-w16_gn_1xb2-6e_cifar10-5k.py with BatchNorm, whose statistics come from batches of 2
# images.
#
#     python tools/train.py configs/classification/resnet18-w16_bn_1xb2-6e_cifar10-5k.py
_base_ = './resnet18-w16_gn_1xb2-6e_cifar10-5k.py'

model = dict(backbone=dict(norm_cfg=dict(_delete_=True, type='BN')))
