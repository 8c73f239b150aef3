# gn.py with InstanceNorm.
_base_ = './gn.py'

model = dict(backbone=dict(norm_cfg=dict(_delete_=True, type='IN', affine=True)))
