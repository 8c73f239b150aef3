"""Registers the layers under their config names in mmengine's root registry, for every scope."""

from __future__ import annotations

import inspect

from mmengine.registry import MODELS
from torch import nn

from .conv import NCConv1d, NCConv2d, NCConv3d, NCConvTranspose2d, NormalizedConv
from .norm import NCAffine, PositionalNorm


class NC:
    """The type 'NC' of both config slots. The arguments decide which layer is built.

    ``build_conv_layer`` passes input channels, output channels and a kernel size, and gets an
    :class:`NCConv2d`. ``build_norm_layer`` passes the number of channels, and gets an
    :class:`NCAffine`.

    Raises:
        TypeError: the layer does not take a key, for example ``num_groups`` of an inherited GN
            config that lacks ``_delete_=True``.
    """

    _abbr_ = NCAffine._abbr_

    def __new__(cls, *args, **kwargs):
        if len(args) > 1 or {'out_channels', 'kernel_size'} & kwargs.keys():
            slot, layer, bases = 'conv_cfg', NCConv2d, (NormalizedConv, nn.Conv2d)
        else:
            slot, layer, bases = 'norm_cfg', NCAffine, (NCAffine,)
        # mmengine leaves the key where nothing was inherited.
        alone = kwargs.pop('_delete_', False)
        taken = {name for base in bases for name in inspect.signature(base.__init__).parameters}
        for key in kwargs.keys() - taken:
            advice = f"{slot} type 'NC' does not take {key}={kwargs[key]!r}: remove the key"
            if not alone:
                advice += f"; if a base config sets it, write {slot}=dict(_delete_=True, type='NC')"
            raise TypeError(advice)
        return layer(*args, **kwargs)


def nc_ws(*args, **kwargs) -> NCConv2d:
    """NC with weight standardisation: ``conv_cfg=dict(type='NCWS')``."""
    kwargs.pop('_delete_', None)
    return NCConv2d(*args, weight_standardize=True, **kwargs)


def register(registry, name: str, module) -> None:
    """Register ``module``, again after a reload, but never over another module's name."""
    known = registry.module_dict.get(name)
    origin = (module.__module__, module.__qualname__)
    if known is not None and (known.__module__, known.__qualname__) != origin:
        raise KeyError(f'{name!r} is already registered as {known}, wanted it for {module}')
    registry.register_module(name=name, module=module, force=True)


for _name, _module in {
    'NC': NC,
    'NC1d': NCConv1d,
    'NC2d': NCConv2d,
    'NC3d': NCConv3d,
    'NCWS': nc_ws,
    'NCDeconv': NCConvTranspose2d,
    'NCAffine': NCAffine,
    'PN': PositionalNorm,
}.items():
    register(MODELS, _name, _module)
if 'SELU' not in MODELS.module_dict:  # mmcv registers ELU but not the paper's SELU
    MODELS.register_module(name='SELU', module=nn.SELU)
