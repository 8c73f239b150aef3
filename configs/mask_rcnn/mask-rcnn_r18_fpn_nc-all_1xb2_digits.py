# mask-rcnn_r18_fpn_gn-all_1xb2_digits.py with Normalized Convolution. The norm slots hold its gain
# and bias per channel.
#
#     python tools/train.py configs/mask_rcnn/mask-rcnn_r18_fpn_nc-all_1xb2_digits.py
_base_ = './mask-rcnn_r18_fpn_gn-all_1xb2_digits.py'

slots = dict(conv_cfg=dict(type='NC'), norm_cfg=dict(_delete_=True, type='NC'))
model = dict(
    backbone=slots,
    neck=slots,
    roi_head=dict(bbox_head=slots, mask_head=slots),
)
