# nc.py with a smaller eps.
_base_ = './nc.py'

model = dict(backbone=dict(conv_cfg=dict(type='NC', eps=1e-8)))
