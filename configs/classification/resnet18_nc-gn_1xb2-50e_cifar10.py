# resnet18_gn_1xb2-50e_cifar10.py with Normalized Convolution before GroupNorm. The GroupNorm
# provides gain and bias.
#
#     python tools/train.py configs/classification/resnet18_nc-gn_1xb2-50e_cifar10.py
_base_ = './resnet18_gn_1xb2-50e_cifar10.py'

model = dict(backbone=dict(conv_cfg=dict(type='NC')))
