# gn.py with SGD with momentum.
_base_ = './gn.py'

optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9))
