# cyclegan_resnet2-w16_in_1xb8-10e_digits.py with GroupNorm.
#
#     python tools/train.py configs/cyclegan/cyclegan_resnet2-w16_gn_1xb8-10e_digits.py
_base_ = './cyclegan_resnet2-w16_in_1xb8-10e_digits.py'

model = dict(
    generator=dict(norm_cfg=dict(_delete_=True, type='GN', num_groups=8)),
    discriminator=dict(norm_cfg=dict(_delete_=True, type='GN', num_groups=8)),
)
