# CycleGAN (arXiv 1703.10593) with InstanceNorm: the authors' networks at full width.
model = dict(
    type='CycleGAN',
    data_preprocessor=dict(type='TranslationPreprocessor'),  # 0..255 to [-1, 1]
    generator=dict(
        type='ResNetGenerator',
        num_blocks=9,
        base_channels=64,  # 11,378,179 parameters
        # No conv_cfg: the convolutions are nn.Conv2d.
        norm_cfg=dict(type='IN', affine=False),
        upsample_cfg=dict(type='deconv'),  # or 'nearest': resize, then convolve
    ),
    discriminator=dict(
        type='PatchDiscriminator',
        num_layers=3,  # the receptive field is 70 x 70 pixels
        base_channels=64,  # 2,764,737 parameters
        norm_cfg=dict(type='IN', affine=False),
    ),
    cycle_weight=10.0,
    identity_weight=5.0,  # half of the cycle weight
    pool_size=50,  # images
    init_cfg=dict(type='Normal', layer=['Conv2d', 'ConvTranspose2d'], std=0.02),
)
