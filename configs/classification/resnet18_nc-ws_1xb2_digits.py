# resnet18_gn_1xb2_digits.py with Normalized Convolution and weight standardisation (WS+NC in the
# paper).
#
#     python tools/train.py configs/classification/resnet18_nc-ws_1xb2_digits.py
_base_ = './resnet18_gn_1xb2_digits.py'

model = dict(backbone=dict(conv_cfg=dict(type='NCWS'), norm_cfg=dict(_delete_=True, type='NC')))
