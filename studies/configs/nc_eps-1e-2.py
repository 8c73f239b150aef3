# nc.py with a larger eps.
_base_ = './nc.py'

model = dict(backbone=dict(conv_cfg=dict(type='NC', eps=1e-2)))
