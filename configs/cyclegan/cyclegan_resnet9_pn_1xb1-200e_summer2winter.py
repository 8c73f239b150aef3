# cyclegan_resnet9_in_1xb1-200e_summer2winter.py with PositionalNorm (arXiv 1907.04312).
#
#     python tools/train.py configs/cyclegan/cyclegan_resnet9_pn_1xb1-200e_summer2winter.py
_base_ = './cyclegan_resnet9_in_1xb1-200e_summer2winter.py'

model = dict(
    generator=dict(norm_cfg=dict(_delete_=True, type='PN')),
    discriminator=dict(norm_cfg=dict(_delete_=True, type='PN')),
)
