# gn.py with weight standardisation.
_base_ = './gn.py'

model = dict(backbone=dict(conv_cfg=dict(type='ConvWS')))
