# Twin of resnet18_gn_1xb2_digits.py: positional normalisation: per pixel, over the channels.
#
#     python tools/train.py configs/classification/resnet18_pn_1xb2_digits.py
_base_ = './resnet18_gn_1xb2_digits.py'

model = dict(backbone=dict(norm_cfg=dict(_delete_=True, type='PN')))
