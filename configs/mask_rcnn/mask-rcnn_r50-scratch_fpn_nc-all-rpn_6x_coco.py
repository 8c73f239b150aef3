# mask-rcnn_r50-scratch_fpn_nc-all_6x_coco.py with NC also in the 3x3 convolution of the RPN. Only
# the predictors and the deconvolution of the mask head stay plain. As in mmdet, the convolution of
# the RPN has a bias and no norm. There is no GN variant.
#
#     python tools/train.py configs/mask_rcnn/mask-rcnn_r50-scratch_fpn_nc-all-rpn_6x_coco.py
_base_ = './mask-rcnn_r50-scratch_fpn_nc-all_6x_coco.py'
custom_imports = dict(
    imports=['nc_plugins', 'nc_plugins.models.rpn_head'], allow_failed_imports=False
)

model = dict(rpn_head=dict(type='RPNHeadWithSlots', conv_cfg=dict(type='NC')))
