# The edit that turns a CycleGAN with InstanceNorm into one with Normalized Convolution. A config
# inherits this file beside the InstanceNorm config and sets `model = _base_.slots`.
#
# Every convolution that has a norm layer behind it becomes an NC convolution, and the norm layer
# becomes its gain and bias per channel. These convolutions stay plain: the last one of each
# generator, and the first and the last one of each discriminator.
slots = dict(
    generator=dict(
        conv_cfg=dict(type='NC'),
        norm_cfg=dict(_delete_=True, type='NC'),
        upsample_cfg=dict(type='NCDeconv'),
    ),
    discriminator=dict(conv_cfg=dict(type='NC'), norm_cfg=dict(_delete_=True, type='NC')),
    # InstanceNorm removes the scale of the weights, but NC standardises the input, so the weights
    # set the scale of the output. A weight variance of 1 / fan-in gives an output variance of
    # about 1, as after InstanceNorm. The plain convolutions keep the initialisation of CycleGAN.
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
