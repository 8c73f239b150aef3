# resnet18_gn_1xb2-50e_cifar10.py with weight standardisation (mmcv's ConvWS).
#
#     python tools/train.py configs/classification/resnet18_gn-ws_1xb2-50e_cifar10.py
_base_ = './resnet18_gn_1xb2-50e_cifar10.py'

model = dict(backbone=dict(conv_cfg=dict(type='ConvWS')))
