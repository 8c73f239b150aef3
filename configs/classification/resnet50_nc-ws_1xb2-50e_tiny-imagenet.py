# resnet50_gn_1xb2-50e_tiny-imagenet.py with Normalized Convolution and weight standardisation
# (WS+NC in the paper).
#
#     python tools/train.py configs/classification/resnet50_nc-ws_1xb2-50e_tiny-imagenet.py
_base_ = './resnet50_gn_1xb2-50e_tiny-imagenet.py'

model = dict(backbone=dict(conv_cfg=dict(type='NCWS'), norm_cfg=dict(_delete_=True, type='NC')))
