# Twin of resnet18_gn_1xb2-50e_cifar10.py:
# NC convolutions, and in the norm slot their gain and bias per channel.
#
#     python tools/train.py configs/classification/resnet18_nc_1xb2-50e_cifar10.py
_base_ = './resnet18_gn_1xb2-50e_cifar10.py'

model = dict(backbone=dict(conv_cfg=dict(type='NC'), norm_cfg=dict(_delete_=True, type='NC')))
