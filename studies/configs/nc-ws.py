# gn.py with Normalized Convolution and weight standardisation.
_base_ = './gn.py'

model = dict(backbone=dict(conv_cfg=dict(type='NCWS'), norm_cfg=dict(_delete_=True, type='NC')))
