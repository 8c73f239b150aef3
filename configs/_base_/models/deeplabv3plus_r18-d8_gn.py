# DeepLabV3+ with GroupNorm on a ResNet-18 of a quarter of the usual width, for CPU cores. A config
# adds the number of classes, the size of its crops, and the mean and standard deviation of its
# pixels.
norm_cfg = dict(type='GN', num_groups=8)  # 2 channels a group in the first stage
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,  # ignored by the loss
    ),
    backbone=dict(
        type='ResNet',
        depth=18,
        stem_channels=16,
        base_channels=16,
        num_stages=3,  # a fourth stage would double the time
        strides=(1, 2, 1),
        dilations=(1, 1, 2),  # d8: the output has an eighth of the input's height and width
        out_indices=(0, 1, 2),
        contract_dilation=True,
        # No conv_cfg, here and below: the convolutions are nn.Conv2d.
        norm_cfg=norm_cfg,
        norm_eval=False,  # a BatchNorm variant trains its statistics
        zero_init_residual=False,
    ),
    decode_head=dict(
        type='SepASPPHead',
        in_channels=64,
        in_index=2,
        channels=32,
        dilations=(1, 2, 4, 6),  # for feature maps of 16 to 20 pixels
        c1_in_channels=16,  # of the first stage, at a quarter of the input's height and width
        c1_channels=16,
        dropout_ratio=0.1,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
