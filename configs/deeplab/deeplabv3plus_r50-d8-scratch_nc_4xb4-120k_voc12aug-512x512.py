# deeplabv3plus_r50-d8-scratch_gn_4xb4-120k_voc12aug-512x512.py with Normalized Convolution. The
# norm slots hold its gain and bias per channel.
#
#     python tools/train.py \
#         configs/deeplab/deeplabv3plus_r50-d8-scratch_nc_4xb4-120k_voc12aug-512x512.py
_base_ = './deeplabv3plus_r50-d8-scratch_gn_4xb4-120k_voc12aug-512x512.py'

slots = dict(conv_cfg=dict(type='NC'), norm_cfg=dict(_delete_=True, type='NC'))
model = dict(backbone=slots, decode_head=slots, auxiliary_head=slots)
