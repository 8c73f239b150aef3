# Twin of resnet18-w16_gn_1xb2-6e_cifar10-5k.py: BatchNorm, over a batch of 2.
#
#     python tools/train.py configs/classification/resnet18-w16_bn_1xb2-6e_cifar10-5k.py
_base_ = './resnet18-w16_gn_1xb2-6e_cifar10-5k.py'

model = dict(backbone=dict(norm_cfg=dict(_delete_=True, type='BN')))
