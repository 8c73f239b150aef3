# cyclegan_resnet9_in_1xb1-200e_summer2winter.py with GroupNorm.
#
#     python tools/train.py configs/cyclegan/cyclegan_resnet9_gn_1xb1-200e_summer2winter.py
_base_ = './cyclegan_resnet9_in_1xb1-200e_summer2winter.py'

model = dict(
    generator=dict(norm_cfg=dict(_delete_=True, type='GN', num_groups=32)),
    discriminator=dict(norm_cfg=dict(_delete_=True, type='GN', num_groups=32)),
)
