# deeplabv3plus_r50-d8-scratch_gn_4xb4-120k_voc12aug-512x512.py with BatchNorm over the images of
# all GPUs, as in mmseg. It requires two images per GPU or more: with one image, the image pooling
# of ASPP leaves a single value per channel.
#
#     python tools/train.py \
#         configs/deeplab/deeplabv3plus_r50-d8-scratch_bn_4xb4-120k_voc12aug-512x512.py
_base_ = './deeplabv3plus_r50-d8-scratch_gn_4xb4-120k_voc12aug-512x512.py'

slots = dict(norm_cfg=dict(_delete_=True, type='SyncBN'))
model = dict(backbone=slots, decode_head=slots, auxiliary_head=slots)
