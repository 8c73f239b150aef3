"""What a convolution or norm is, and the layer of another kind that can stand in its place.

Classes of mmcv, mmdet, timm and torchvision are recognised by package and name, so that none of
them has to be installed. A class with a forward of its own that is not listed here has no kind,
and convert() leaves it.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.lazy import LazyModuleMixin

from ..layers import NCAffine, NCConv1d, NCConv2d, NCConv3d, NCConvTranspose2d, PositionalNorm
from ..layers.conv import Gain, NCConv2dSame, NormalizedConv
from ..layers.neighbours import norm_channels
from ..layers.norm import NCAffineAct, WithActivation
from . import forms

# The kinds of the convolution and of the norm behind it, for each value of ``to``.
TARGETS = {
    'NC': ('NC', 'NC'),
    'NCWS': ('NCWS', 'NC'),
    'GN': ('plain', 'GN'),
    'WS+GN': ('ConvWS', 'GN'),
    'BN': ('plain', 'BN'),
    'IN': ('plain', 'IN'),
    'LN': ('plain', 'LN'),
    'PN': ('plain', 'PN'),
}

_PLAIN = {'mmcv.Conv2d', 'mmcv.Conv3d', 'mmcv.ConvTranspose2d'}
_SAME_PADDING = {'mmcv.Conv2dAdaptivePadding', 'timm.Conv2dSame', 'timm.StdConv2dSame'}
_STANDARDIZED = {'mmcv.ConvWS2d', 'mmcv.ConvAWS2d', 'timm.StdConv2d', 'timm.StdConv2dSame'}
_WITH_ACTIVATION = {
    'timm.BatchNormAct2d': 'BN',
    'timm.SyncBatchNormAct': 'BN',
    'timm.FrozenBatchNormAct2d': 'BN',
    'timm.GroupNormAct': 'GN',
    'timm.GroupNorm1Act': 'GN',
    'timm.LayerNormAct2d': 'PN',
    'timm.LayerNormAct2dFp32': 'PN',
}
_NORMS = {
    'mmdet.FrozenBatchNorm2d': 'BN',
    'torchvision.FrozenBatchNorm2d': 'BN',
    'timm.GroupNorm': 'GN',
    'timm.GroupNorm1': 'GN',
    **_WITH_ACTIVATION,
}
_FORWARDS = {
    NCAffine.forward: 'NC',
    forms.NCNoAffine.forward: 'NC',
    PositionalNorm.forward: 'PN',
    nn.GroupNorm.forward: 'GN',
    _BatchNorm.forward: 'BN',
    nn.SyncBatchNorm.forward: 'BN',
    _InstanceNorm.forward: 'IN',
}
_NC_FORMS = {
    nn.Conv1d: NCConv1d,
    nn.Conv2d: NCConv2d,
    nn.Conv3d: NCConv3d,
    nn.ConvTranspose2d: NCConvTranspose2d,
}
_WS_FORMS = {nn.Conv1d: forms.ConvWS1d, nn.Conv2d: forms.ConvWS2d, nn.Conv3d: forms.ConvWS3d}
_BATCH_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_INSTANCE_NORMS = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


def known_as(module: nn.Module) -> str:
    """Package and name of the module's class, such as 'timm.BatchNormAct2d'."""
    return f'{type(module).__module__.partition(".")[0]}.{type(module).__name__}'


def torch_class(conv: nn.Module) -> type | None:
    """The class of torch that the convolution is or inherits, if NC has a form of it."""
    return next((base for base in _NC_FORMS if isinstance(conv, base)), None)


def conv_kind(conv: nn.Module) -> str | None:
    """'NC', 'NCWS', 'ConvWS' or 'plain', or None for a class that convert() does not know."""
    base, cls = torch_class(conv), type(conv)
    if base is None or hasattr(conv, 'parametrizations') or isinstance(conv, LazyModuleMixin):
        return None
    if isinstance(conv, NormalizedConv):
        return 'NCWS' if conv.weight_standardize else 'NC'
    if known_as(conv) in _STANDARDIZED or isinstance(conv, forms.StandardizedWeight):
        return 'ConvWS'
    inherits = cls.forward is base.forward and cls._conv_forward is base._conv_forward
    return 'plain' if inherits or known_as(conv) in _PLAIN | _SAME_PADDING else None


def norm_kind(norm: nn.Module) -> str | None:
    """'NC', 'GN', 'BN', 'IN', 'LN' or 'PN', or None for a class that convert() does not know."""
    if isinstance(norm, Gain | LazyModuleMixin):
        return None
    if isinstance(norm, forms.ChannelLayerNorm):
        return 'LN'
    if isinstance(norm, WithActivation):
        return _FORWARDS[super(WithActivation, norm).forward.__func__]
    return _NORMS.get(known_as(norm)) or _FORWARDS.get(type(norm).forward)


def is_frozen_batch_norm(norm: nn.Module) -> bool:
    """Whether weight and bias of the norm are buffers."""
    return known_as(norm) in _NORMS and 'weight' in norm._buffers


def group_count(channels: int) -> int:
    """The largest divisor of ``channels`` up to 32 that leaves two channels a group, or 1."""
    counts = range(1, min(32, channels // 2) + 1)
    return max((count for count in counts if channels % count == 0), default=1)


def make_conv(kind: str, conv: nn.Module) -> nn.Module:
    """A convolution of the kind with the arguments of ``conv``, on the meta device."""
    base = torch_class(conv)
    same = known_as(conv) in _SAME_PADDING and getattr(conv, 'same_pad', True)
    names = ['in_channels', 'out_channels', 'kernel_size', 'stride', 'padding', 'dilation']
    names += ['groups', 'padding_mode', *(['output_padding'] if conv.transposed else [])]
    options = {name: getattr(conv, name) for name in names}
    options.update(bias=conv.bias is not None, device='meta')
    if same:
        options['padding'] = 0
    if kind in ('NC', 'NCWS'):
        cls = NCConv2dSame if same else _NC_FORMS[base]
        return cls(**options, weight_standardize=kind == 'NCWS')
    if kind == 'ConvWS':
        return (forms.ConvWS2dSame if same else _WS_FORMS[base])(**options)
    return base(**options)


def has_form(kind: str, conv: nn.Module) -> bool:
    """Whether :func:`make_conv` has a class for it."""
    return torch_class(conv) in (_WS_FORMS if kind == 'ConvWS' else _NC_FORMS)


def make_norm(kind: str, norm: nn.Module, dims: int, like: torch.Tensor) -> nn.Module:
    """A norm of the kind for the channels of ``norm``, with the dtype and device of ``like``."""
    channels, affine = norm_channels(norm), norm.weight is not None
    act = isinstance(norm, WithActivation) or known_as(norm) in _WITH_ACTIVATION
    factory = {'eps': norm.eps, 'device': like.device, 'dtype': like.dtype}
    if kind == 'NC':
        plain, with_act = NCAffine, NCAffineAct
        if not affine:
            plain, with_act = forms.NCNoAffine, forms.NCNoAffineAct
        return (with_act if act else plain)(channels, **factory)
    if kind == 'PN':
        return (forms.PositionalNormAct if act else PositionalNorm)(channels, **factory)
    factory['affine'] = affine
    if kind == 'GN':
        cls = forms.GroupNormAct if act else nn.GroupNorm
        return cls(group_count(channels), channels, **factory)
    if kind == 'LN':
        return (forms.ChannelLayerNormAct if act else forms.ChannelLayerNorm)(
            1, channels, **factory
        )
    if kind == 'BN':
        return (forms.BatchNormAct if act else _BATCH_NORMS[dims])(channels, **factory)
    return (forms.InstanceNormAct if act else _INSTANCE_NORMS[dims])(channels, **factory)
