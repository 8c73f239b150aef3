# gn.py with a gain and bias per channel in place of GroupNorm.
_base_ = './gn.py'

custom_imports = dict(
    imports=['nc_plugins', 'nc_plugins.datasets.cifar10', 'studies.networks'],
    allow_failed_imports=False,
)

model = dict(backbone=dict(norm_cfg=dict(_delete_=True, type='ChannelAffine')))
