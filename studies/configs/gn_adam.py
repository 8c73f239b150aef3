# gn.py with Adam.
_base_ = './gn.py'

optim_wrapper = dict(optimizer=dict(_delete_=True, type='Adam', lr=1e-3))
