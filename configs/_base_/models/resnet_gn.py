# ResNet classifier with GroupNorm at full width. A config adds the variant and the depth of the
# backbone, the number of classes, and the mean and standard deviation of its pixels.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        stem_channels=64,
        base_channels=64,
        # No conv_cfg: the convolutions are nn.Conv2d.
        norm_cfg=dict(type='GN', num_groups=32),  # 2 channels a group in the first stage
        act_cfg=dict(type='ReLU', inplace=True),
        zero_init_residual=False,  # mmpretrain's default starts every residual branch at 0
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),  # no label smoothing
        topk=(1,),
    ),
)
