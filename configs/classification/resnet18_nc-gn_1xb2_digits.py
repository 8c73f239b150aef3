# resnet18_gn_1xb2_digits.py with Normalized Convolution before GroupNorm. The GroupNorm provides
# gain and bias.
#
#     python tools/train.py configs/classification/resnet18_nc-gn_1xb2_digits.py
_base_ = './resnet18_gn_1xb2_digits.py'

model = dict(backbone=dict(conv_cfg=dict(type='NC')))
