# Mask R-CNN R50-FPN from scratch on COCO with GroupNorm wherever the model has a norm slot, 6x (73
# epochs), 8 GPUs x 2 images: mmdet's own recipe (published: box AP 41.2, mask AP 37.4) with this
# package's hooks. Every mask-rcnn_r50-scratch_fpn_*_coco.py inherits it.
#
#     python tools/train.py configs/mask_rcnn/mask-rcnn_r50-scratch_fpn_gn-all_6x_coco.py
#
# On fewer GPUs add --auto-scale-lr. "All" is what has a norm slot: 53 convolutions of the backbone,
# 8 of the FPN, 4 of the box head, 4 of the mask head. Plain convolutions in every twin:
#     rpn_head.rpn_conv, rpn_cls, rpn_reg   mmdet's RPN builds nn.Conv2d; for the first of them see
#                                           mask-rcnn_r50-scratch_fpn_nc-all-rpn_6x_coco.py
#     roi_head.mask_head.upsample           2x2 deconvolution without a norm slot
#     roi_head.mask_head.conv_logits        predicts the masks
_base_ = 'mmdet::scratch/mask-rcnn_r50-scratch_fpn_gn-all_6x_coco.py'

# Lists are not merged with those of a base: this is the one of ../_base_/default_runtime.py, which
# cannot be a base beside mmdet's runtime, and the loader that names an image it cannot read.
custom_imports = dict(
    imports=['nc_plugins', 'nc_plugins.datasets.loading'], allow_failed_imports=False
)
custom_hooks = [
    dict(type='NCCensusHook'),
    dict(type='RunRecordHook'),
    dict(type='ShortHistoryHook', keep=1000),  # in iterations
]
default_hooks = dict(checkpoint=dict(save_best='coco/segm_mAP', rule='greater'))
visualizer = dict(vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')])
randomness = dict(seed=0, deterministic=False)  # --cfg-options randomness.seed=1 for another run

# mmdet keeps the backbone's BatchNorm in eval mode, which suits pretrained statistics: the BN twin
# must train its own. It means nothing to GN and NC.
model = dict(backbone=dict(norm_eval=False))

# mmdet's pipelines with LoadImage, a LoadImageFromFile that says which image it cannot read.
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
