# mask-rcnn_r18_fpn_gn-all_1xb2_digits.py with BatchNorm, whose statistics come from the images of
# one GPU.
#
#     python tools/train.py configs/mask_rcnn/mask-rcnn_r18_fpn_bn-all_1xb2_digits.py
_base_ = './mask-rcnn_r18_fpn_gn-all_1xb2_digits.py'

slots = dict(norm_cfg=dict(_delete_=True, type='BN'))
model = dict(
    backbone=slots,
    neck=slots,
    roi_head=dict(bbox_head=slots, mask_head=slots),
)
