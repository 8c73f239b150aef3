# resnet18_gn_1xb2_digits.py with PositionalNorm (arXiv 1907.04312), which normalises each pixel
# over its channels.
#
#     python tools/train.py configs/classification/resnet18_pn_1xb2_digits.py
_base_ = './resnet18_gn_1xb2_digits.py'

model = dict(backbone=dict(norm_cfg=dict(_delete_=True, type='PN')))
