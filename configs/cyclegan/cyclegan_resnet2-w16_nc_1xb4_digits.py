# Twin of cyclegan_resnet2-w16_in_1xb4_digits.py
_base_ = './cyclegan_resnet2-w16_in_1xb4_digits.py'

model = dict(
    generator=dict(
        conv_cfg=dict(type='NC'),
        norm_cfg=dict(_delete_=True, type='NC'),
        upsample_cfg=dict(type='NCDeconv'),
    ),
    discriminator=dict(conv_cfg=dict(type='NC'), norm_cfg=dict(_delete_=True, type='NC')),
    init_cfg=dict(
        _delete_=True,
        type='Kaiming',
        layer=['Conv2d', 'ConvTranspose2d'],
        mode='fan_in',
        nonlinearity='linear',
    ),
)
