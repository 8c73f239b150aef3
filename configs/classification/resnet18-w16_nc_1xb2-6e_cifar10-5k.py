# resnet18-w16_gn_1xb2-6e_cifar10-5k.py with Normalized Convolution. The norm slot holds its gain
# and bias per channel.
#
#     python tools/train.py configs/classification/resnet18-w16_nc_1xb2-6e_cifar10-5k.py
_base_ = './resnet18-w16_gn_1xb2-6e_cifar10-5k.py'

model = dict(backbone=dict(conv_cfg=dict(type='NC'), norm_cfg=dict(_delete_=True, type='NC')))
