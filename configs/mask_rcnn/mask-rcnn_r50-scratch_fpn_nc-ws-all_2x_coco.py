# mask-rcnn_r50-scratch_fpn_gn-all_2x_coco.py with Normalized Convolution and weight
# standardisation.
#
#     python tools/train.py configs/mask_rcnn/mask-rcnn_r50-scratch_fpn_nc-ws-all_2x_coco.py
_base_ = './mask-rcnn_r50-scratch_fpn_gn-all_2x_coco.py'

slots = dict(conv_cfg=dict(type='NCWS'), norm_cfg=dict(_delete_=True, type='NC'))
model = dict(
    backbone=slots,
    neck=slots,
    roi_head=dict(bbox_head=slots, mask_head=slots),
)
