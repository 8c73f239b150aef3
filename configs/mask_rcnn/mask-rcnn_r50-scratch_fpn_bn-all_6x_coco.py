# mask-rcnn_r50-scratch_fpn_gn-all_6x_coco.py with BatchNorm, whose statistics come from the images
# of one GPU.
#
#     python tools/train.py configs/mask_rcnn/mask-rcnn_r50-scratch_fpn_bn-all_6x_coco.py
_base_ = './mask-rcnn_r50-scratch_fpn_gn-all_6x_coco.py'

slots = dict(norm_cfg=dict(_delete_=True, type='BN'))
model = dict(
    backbone=slots,
    neck=slots,
    roi_head=dict(bbox_head=slots, mask_head=slots),
)
