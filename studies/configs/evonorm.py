# gn.py with EvoNorm-S0 (arXiv 2004.02967) in place of GroupNorm and the first activation of a
# block.
_base_ = './gn.py'

custom_imports = dict(
    imports=['nc_plugins', 'nc_plugins.datasets.cifar10', 'studies.networks'],
    allow_failed_imports=False,
)

model = dict(
    backbone=dict(
        type='ResNetNormAct_CIFAR',
        norm_cfg=dict(_delete_=True, type='EvoNorm2dS0a', groups=8, eps=1e-3),
    )
)
