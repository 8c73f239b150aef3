# mask-rcnn_r50-scratch_fpn_gn-all_6x_coco.py for 24 epochs instead of 73.
#
#     python tools/train.py configs/mask_rcnn/mask-rcnn_r50-scratch_fpn_gn-all_2x_coco.py
#
# Do not compare the results with mmdet's gn-all 2x (published: 40.2 / 36.4), which starts from
# ImageNet weights trained with GroupNorm. No such weights exist for NC, so all variants here train
# from scratch.
_base_ = './mask-rcnn_r50-scratch_fpn_gn-all_6x_coco.py'

max_epochs = 24
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(
        type='MultiStepLR',
        begin=0,
        end=max_epochs,
        by_epoch=True,
        milestones=[16, 22],
        gamma=0.1,
    ),
]
