# resnet18_gn_1xb2_digits.py with LayerNorm. GroupNorm with one group normalises over C, H and W, as
# in the GroupNorm paper.
#
#     python tools/train.py configs/classification/resnet18_ln_1xb2_digits.py
_base_ = './resnet18_gn_1xb2_digits.py'

model = dict(backbone=dict(norm_cfg=dict(_delete_=True, type='GN', num_groups=1)))
