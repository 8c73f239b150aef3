# nc.py without scaling: patches keep their standard deviation.
_base_ = './nc.py'

model = dict(backbone=dict(conv_cfg=dict(type='NC', scale=False)))
