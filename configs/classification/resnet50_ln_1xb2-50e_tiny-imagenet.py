# resnet50_gn_1xb2-50e_tiny-imagenet.py with LayerNorm. GroupNorm with one group normalises over C,
# H and W, as in the GroupNorm paper.
#
#     python tools/train.py configs/classification/resnet50_ln_1xb2-50e_tiny-imagenet.py
_base_ = './resnet50_gn_1xb2-50e_tiny-imagenet.py'

model = dict(backbone=dict(norm_cfg=dict(_delete_=True, type='GN', num_groups=1)))
