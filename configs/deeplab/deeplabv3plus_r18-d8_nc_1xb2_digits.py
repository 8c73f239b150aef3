# deeplabv3plus_r18-d8_gn_1xb2_digits.py with Normalized Convolution. The norm slots hold its gain
# and bias per channel.
#
#     python tools/train.py configs/deeplab/deeplabv3plus_r18-d8_nc_1xb2_digits.py
_base_ = './deeplabv3plus_r18-d8_gn_1xb2_digits.py'

slots = dict(conv_cfg=dict(type='NC'), norm_cfg=dict(_delete_=True, type='NC'))
model = dict(backbone=slots, decode_head=slots)
