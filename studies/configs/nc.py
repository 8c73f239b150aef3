# gn.py with Normalized Convolution.
_base_ = './gn.py'

model = dict(backbone=dict(conv_cfg=dict(type='NC'), norm_cfg=dict(_delete_=True, type='NC')))
