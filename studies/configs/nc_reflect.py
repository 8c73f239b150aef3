# nc.py with reflected borders, so that no patch holds zeros from padding.
_base_ = './nc.py'

model = dict(backbone=dict(conv_cfg=dict(type='NC', padding_mode='reflect')))
