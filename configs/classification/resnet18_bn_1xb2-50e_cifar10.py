# Twin of resnet18_gn_1xb2-50e_cifar10.py: BatchNorm, over a batch of 2.
#
#     python tools/train.py configs/classification/resnet18_bn_1xb2-50e_cifar10.py
_base_ = './resnet18_gn_1xb2-50e_cifar10.py'

model = dict(backbone=dict(norm_cfg=dict(_delete_=True, type='BN')))
