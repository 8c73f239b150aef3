# resnet18_gn_1xb2-50e_cifar10.py with InstanceNorm, with gain and bias.
#
#     python tools/train.py configs/classification/resnet18_in_1xb2-50e_cifar10.py
_base_ = './resnet18_gn_1xb2-50e_cifar10.py'

model = dict(backbone=dict(norm_cfg=dict(_delete_=True, type='IN', affine=True)))
