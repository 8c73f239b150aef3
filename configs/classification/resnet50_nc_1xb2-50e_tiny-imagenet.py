# resnet50_gn_1xb2-50e_tiny-imagenet.py with Normalized Convolution. The norm slot holds its gain
# and bias per channel.
#
#     python tools/train.py configs/classification/resnet50_nc_1xb2-50e_tiny-imagenet.py
_base_ = './resnet50_gn_1xb2-50e_tiny-imagenet.py'

model = dict(backbone=dict(conv_cfg=dict(type='NC'), norm_cfg=dict(_delete_=True, type='NC')))
