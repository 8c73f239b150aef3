# mask-rcnn_r50-scratch_fpn_nc-all_6x_coco.py with NC in the RPN's 3x3 convolution too, so that
# only the predictors and the mask head's deconvolution stay plain. It keeps its bias and has no
# norm slot, as upstream's RPN has none. There is no GN twin: the GN file's RPN has no norm.
#
#     python tools/train.py configs/mask_rcnn/mask-rcnn_r50-scratch_fpn_nc-all-rpn_6x_coco.py
_base_ = './mask-rcnn_r50-scratch_fpn_nc-all_6x_coco.py'
custom_imports = dict(
    imports=['nc_plugins', 'nc_plugins.datasets.loading', 'nc_plugins.models.rpn_head'],
    allow_failed_imports=False,
)

model = dict(rpn_head=dict(type='RPNHeadWithSlots', conv_cfg=dict(type='NC')))
