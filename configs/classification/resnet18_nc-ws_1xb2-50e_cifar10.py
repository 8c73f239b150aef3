# resnet18_gn_1xb2-50e_cifar10.py with Normalized Convolution and weight standardisation (WS+NC in
# the paper).
#
#     python tools/train.py configs/classification/resnet18_nc-ws_1xb2-50e_cifar10.py
_base_ = './resnet18_gn_1xb2-50e_cifar10.py'

model = dict(backbone=dict(conv_cfg=dict(type='NCWS'), norm_cfg=dict(_delete_=True, type='NC')))
