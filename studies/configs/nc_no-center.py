# nc.py without centring: patches keep their mean.
_base_ = './nc.py'

model = dict(backbone=dict(conv_cfg=dict(type='NC', center=False)))
