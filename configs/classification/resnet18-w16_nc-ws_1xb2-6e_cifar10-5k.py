# resnet18-w16_gn_1xb2-6e_cifar10-5k.py with Normalized Convolution and weight standardisation
# (WS+NC in the paper).
#
#     python tools/train.py configs/classification/resnet18-w16_nc-ws_1xb2-6e_cifar10-5k.py
_base_ = './resnet18-w16_gn_1xb2-6e_cifar10-5k.py'

model = dict(backbone=dict(conv_cfg=dict(type='NCWS'), norm_cfg=dict(_delete_=True, type='NC')))
