"""Counts what a model is made of, so that a swap can be seen rather than believed."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from .conv import _NCConv
from .norm import NCAffine, PositionalNorm

KINDS = ('NC', 'NCWS', 'conv', 'ConvWS', 'NCAffine', 'PN', 'GN', 'LN', 'IN', 'BN')


def layer_census(model: nn.Module) -> dict[str, int]:
    """Count the convolutions and norms of ``model`` by kind, every kind of ``KINDS`` present.

    'NC' and 'NCWS' are normalized convolutions without and with weight standardisation, transposed
    ones included; 'conv' any other convolution, unless its class is one of the weight-standardised
    ones ('ConvWS': mmcv's ConvWS and ConvAWS, timm's StdConv). A module used in several places
    counts once.
    """
    census = dict.fromkeys(KINDS, 0)
    for module in model.modules():
        kind = _kind(module)
        if kind:
            census[kind] += 1
    return census


def _kind(module: nn.Module) -> str | None:
    if isinstance(module, _NCConv):
        return 'NCWS' if module.weight_standardize else 'NC'
    if isinstance(module, _ConvNd):
        name = type(module).__name__
        return 'ConvWS' if name.startswith(('ConvWS', 'ConvAWS', 'StdConv')) else 'conv'
    for kind, classes in (
        ('NCAffine', NCAffine),  # subclasses of GroupNorm come before it
        ('PN', PositionalNorm),
        ('GN', nn.GroupNorm),
        ('LN', nn.LayerNorm),
        ('BN', _BatchNorm),
        ('IN', _InstanceNorm),
    ):
        if isinstance(module, classes):
            return kind
    return None
