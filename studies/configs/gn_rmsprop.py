# gn.py with RMSProp.
_base_ = './gn.py'

optim_wrapper = dict(optimizer=dict(_delete_=True, type='RMSprop', lr=1e-3))
