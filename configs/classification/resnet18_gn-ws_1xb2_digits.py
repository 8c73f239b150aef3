# resnet18_gn_1xb2_digits.py with weight standardisation (mmcv's ConvWS).
#
#     python tools/train.py configs/classification/resnet18_gn-ws_1xb2_digits.py
_base_ = './resnet18_gn_1xb2_digits.py'

model = dict(backbone=dict(conv_cfg=dict(type='ConvWS')))
