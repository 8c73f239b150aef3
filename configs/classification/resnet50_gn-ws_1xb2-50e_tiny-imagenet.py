# resnet50_gn_1xb2-50e_tiny-imagenet.py with weight standardisation (mmcv's ConvWS).
#
#     python tools/train.py configs/classification/resnet50_gn-ws_1xb2-50e_tiny-imagenet.py
_base_ = './resnet50_gn_1xb2-50e_tiny-imagenet.py'

model = dict(backbone=dict(conv_cfg=dict(type='ConvWS')))
