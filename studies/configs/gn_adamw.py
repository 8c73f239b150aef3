# gn.py with AdamW.
_base_ = './gn.py'

optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=0.01))
