# gn.py with LayerNorm: GroupNorm with one group, over C, H and W.
_base_ = './gn.py'

model = dict(backbone=dict(norm_cfg=dict(_delete_=True, type='GN', num_groups=1)))
