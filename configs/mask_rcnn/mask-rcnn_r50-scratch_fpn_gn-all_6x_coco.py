# Mask R-CNN R50-FPN from scratch on COCO, with GroupNorm wherever the model has a norm slot, for 6x
# (73 epochs) on 8 GPUs with 2 images each: mmdet's recipe (published: box AP 41.2, mask AP 37.4)
# with the hooks of this package. The mask-rcnn_r50-scratch_fpn_*_coco.py files inherit it.
#
#     python tools/train.py configs/mask_rcnn/mask-rcnn_r50-scratch_fpn_gn-all_6x_coco.py
#
# On fewer GPUs add --auto-scale-lr. "All" are the convolutions with a norm slot: 53 of the
# backbone, 8 of the FPN, 4 of the box head, 4 of the mask head. The others stay plain in every
# variant:
#     rpn_head.rpn_conv, rpn_cls, rpn_reg   mmdet's RPN builds nn.Conv2d; for the first one see
#                                           mask-rcnn_r50-scratch_fpn_nc-all-rpn_6x_coco.py
#     roi_head.mask_head.upsample           2x2 deconvolution without a norm slot
#     roi_head.mask_head.conv_logits        predicts the masks
_base_ = 'mmdet::scratch/mask-rcnn_r50-scratch_fpn_gn-all_6x_coco.py'

# The settings of ../_base_/default_runtime.py. That file cannot be a second base, because mmdet's
# runtime defines the same keys.
custom_imports = dict(imports=['nc_plugins'], allow_failed_imports=False)
custom_hooks = [
    dict(type='NCCensusHook'),
    dict(type='RunRecordHook'),
    dict(type='DataCheckHook'),
    dict(type='ShortHistoryHook', keep=1000),  # in iterations
]
default_hooks = dict(checkpoint=dict(save_best='coco/segm_mAP', rule='greater'))
visualizer = dict(vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')])
randomness = dict(seed=0, deterministic=False)  # --cfg-options randomness.seed=1 for another run

# mmdet keeps the backbone's BatchNorm in evaluation mode, for pretrained statistics. The BN variant
# must train its statistics. GN and NC have none.
model = dict(backbone=dict(norm_eval=False))
