# resnet50_gn_1xb2-50e_tiny-imagenet.py with Normalized Convolution before GroupNorm. The GroupNorm
# provides gain and bias.
#
#     python tools/train.py configs/classification/resnet50_nc-gn_1xb2-50e_tiny-imagenet.py
_base_ = './resnet50_gn_1xb2-50e_tiny-imagenet.py'

model = dict(backbone=dict(conv_cfg=dict(type='NC')))
