"""Turns a layer into one of another kind in place.

Only the class and the attributes of the class change. The module object stays, so every parent,
Python list and hook that refers to it keeps working; so do its Parameter objects, and with them
optimisers. The first swap of a module remembers its class and attributes, and the way back
restores them.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ..layers import NCAffine
from ..layers.conv import NormalizedConv
from ..layers.half_swap import check_at_first_forward
from .kinds import conv_kind, is_frozen_batch_norm, make_conv, make_norm, norm_kind

_NC_NAMES = ('eps', 'center', 'scale', 'affine', 'weight_standardize', 'allow_bn', 'backend')


class Before(NamedTuple):
    """What a module was before its first swap, and the attributes that the swap added."""

    kind: str
    cls: type
    attributes: dict
    added: tuple[str, ...]


def first_kind(module: nn.Module) -> str | None:
    """The kind of a convolution or norm before any swap."""
    before = module.__dict__.get('_before')
    return before.kind if before else conv_kind(module) or norm_kind(module)


def first_class(module: nn.Module) -> type:
    """The class of the module before any swap."""
    before = module.__dict__.get('_before')
    return before.cls if before else type(module)


def swap_conv(conv: nn.Module, kind: str) -> None:
    """Make ``conv`` a convolution of the kind 'NC', 'NCWS', 'ConvWS' or 'plain'."""
    _restore(conv)
    if conv_kind(conv) != kind:
        _become(conv, make_conv(kind, conv), conv_kind(conv))
    if isinstance(conv, NormalizedConv):
        check_at_first_forward(conv)


def swap_norm(norm: nn.Module, kind: str, dims: int, like: Tensor) -> None:
    """Make ``norm`` a norm of the kind 'NC', 'GN', 'BN', 'IN', 'LN' or 'PN'.

    Running statistics are dropped, and are new after a swap to BatchNorm.

    Args:
        dims: positions have so many axes, which decides the class of BatchNorm and InstanceNorm.
        like: has the dtype and the device of new running statistics if the norm has no weight.
    """
    like = like if norm.weight is None else norm.weight
    _restore(norm)
    if is_frozen_batch_norm(norm):
        _make_batch_norm(norm, dims, like)
    first = norm_kind(norm)
    if first != kind:
        _become(norm, make_norm(kind, norm, dims, like), first)
    _renew_statistics(norm, like)
    if isinstance(norm, NCAffine):
        check_at_first_forward(norm)


def _renew_statistics(norm: nn.Module, like: Tensor) -> None:
    """Drop running statistics. BatchNorm and InstanceNorm get new ones, or None as they have it."""
    fresh = nn.BatchNorm1d(1)
    for name in fresh._buffers:
        norm._buffers.pop(name, None)
    if isinstance(norm, _NormBase):
        size = {'device': like.device, 'dtype': like.dtype}
        fresh = nn.BatchNorm1d(norm.num_features, affine=False, **size)
        for name, value in fresh.named_buffers():
            norm.register_buffer(name, value if norm.track_running_stats else None)


def _make_batch_norm(norm: nn.Module, dims: int, like: Tensor) -> None:
    """Turn a FrozenBatchNorm2d into BatchNorm with frozen parameters of the same names.

    There is no way back: without its running statistics a frozen BatchNorm is useless.
    """
    weight, bias = norm._buffers.pop('weight'), norm._buffers.pop('bias')
    norm.weight = nn.Parameter(weight, requires_grad=False)
    norm.bias = nn.Parameter(bias, requires_grad=False)
    _become(norm, make_norm('BN', norm, dims, like), 'BN')
    del norm.__dict__['_before']


def _restore(module: nn.Module) -> None:
    """Undo the last swap, except for running statistics."""
    before = module.__dict__.pop('_before', None)
    if before:
        for name in before.added:
            module.__dict__.pop(name, None)
        module.__dict__.update(before.attributes)
        module.__class__ = before.cls


def _become(module: nn.Module, template: nn.Module, kind: str) -> None:
    """Give ``module`` the class and the attributes of ``template``, not its parameters."""
    added = {n: v for n, v in vars(template).items() if n not in vars(nn.Module())}
    names = {*getattr(module, '__constants__', ()), *added}
    if isinstance(module, NormalizedConv):
        names.update(_NC_NAMES)
    replaced = {n: module.__dict__.pop(n) for n in names if n in module.__dict__}
    module.__dict__.update(added, _before=Before(kind, type(module), replaced, tuple(added)))
    module.__class__ = type(template)
