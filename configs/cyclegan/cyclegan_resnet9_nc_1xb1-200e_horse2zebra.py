# Twin of cyclegan_resnet9_in_1xb1-200e_horse2zebra.py with Normalized Convolution:
# NC convolutions, and in the norm slot their gain and bias per channel.
#
#     python tools/train.py configs/cyclegan/cyclegan_resnet9_nc_1xb1-200e_horse2zebra.py
#
# Normalised: every convolution that has a norm behind it in the original. Plain as there: the
# convolution to RGB of each generator, the first and the last one of each discriminator.
_base_ = './cyclegan_resnet9_in_1xb1-200e_horse2zebra.py'

model = dict(
    generator=dict(
        conv_cfg=dict(type='NC'),
        norm_cfg=dict(_delete_=True, type='NC'),
        upsample_cfg=dict(type='NCDeconv'),
    ),
    discriminator=dict(conv_cfg=dict(type='NC'), norm_cfg=dict(_delete_=True, type='NC')),
    # Behind an InstanceNorm the size of a filter does not matter. NC standardises what goes in, so
    # the filter sets the size of what comes out: about 1 with variance 1 / fan-in, as after a norm.
    # The plain convolutions start as in the twin.
    init_cfg=[
        dict(type='Normal', layer=['Conv2d', 'ConvTranspose2d'], std=0.02),
        dict(
            type='Kaiming',
            layer=['NCConv2d', 'NCConvTranspose2d'],
            mode='fan_in',
            nonlinearity='linear',
            distribution='normal',
        ),
    ],
)
