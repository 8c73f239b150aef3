# cyclegan_resnet2-w16_in_1xb8-10e_digits.py with PositionalNorm (arXiv 1907.04312).
#
#     python tools/train.py configs/cyclegan/cyclegan_resnet2-w16_pn_1xb8-10e_digits.py
_base_ = './cyclegan_resnet2-w16_in_1xb8-10e_digits.py'

model = dict(
    generator=dict(norm_cfg=dict(_delete_=True, type='PN')),
    discriminator=dict(norm_cfg=dict(_delete_=True, type='PN')),
)
