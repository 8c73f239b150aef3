# nc.py and GroupNorm, which provides gain and bias.
_base_ = './nc.py'

model = dict(backbone=dict(norm_cfg=dict(_delete_=True, type='GN', num_groups=8)))
