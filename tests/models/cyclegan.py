"""A tiny CycleGAN with each norm, and a batch for it."""

import torch
from mmengine.registry import MODELS

from nc_plugins.models import cyclegan  # noqa: F401 (registers the model)

IN = dict(norm_cfg=dict(type='IN', affine=False))
NC = dict(conv_cfg=dict(type='NC'), norm_cfg=dict(type='NC'))
SLOTS = {
    'in': IN,
    'nc': NC,
    'pn': dict(norm_cfg=dict(type='PN')),
    'gn': dict(norm_cfg=dict(type='GN', num_groups=2)),
}
ADAM = dict(type='Adam', lr=2e-4, betas=(0.5, 0.999))
OPTIM = dict(generator=dict(optimizer=ADAM), discriminator=dict(optimizer=ADAM))


def tiny(kind='in', **kwargs):
    slots = SLOTS[kind]
    upsample = dict(type='NCDeconv' if kind == 'nc' else 'deconv')
    generator = dict(
        type='ResNetGenerator', num_blocks=1, base_channels=4, upsample_cfg=upsample, **slots
    )
    discriminator = dict(type='PatchDiscriminator', num_layers=1, base_channels=4, **slots)
    return dict(type='CycleGAN', generator=generator, discriminator=discriminator, **kwargs)


def build(kind='in', **kwargs):
    torch.manual_seed(0)
    return MODELS.build(tiny(kind, **kwargs))


def batch(size=16, n=2):
    torch.manual_seed(1)
    image = lambda: torch.randint(0, 256, (3, size, size), dtype=torch.uint8)  # noqa: E731
    return {
        'inputs': {'A': [image() for _ in range(n)], 'B': [image() for _ in range(n)]},
        'data_samples': {'A': [f'a{i}' for i in range(n)], 'B': [f'b{i}' for i in range(n)]},
    }
