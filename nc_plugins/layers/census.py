"""Counts the convolutions and norms of a model by kind."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from .conv import Gain, NormalizedConv
from .deployed import DeployedConv
from .norm import NCAffine, PositionalNorm

KINDS = ('NC', 'NCWS', 'conv', 'ConvWS', 'NCAffine', 'PN', 'GN', 'LN', 'IN', 'BN')


def layer_census(model: nn.Module) -> dict[str, int]:
    """Count the convolutions and norms of ``model`` by kind.

    'NC' and 'NCWS' are normalized convolutions without and with weight standardisation, transposed
    ones included. 'ConvWS' are weight-standardised convolutions (mmcv's ConvWS and ConvAWS, timm's
    StdConv), and 'conv' all others. A module that is used in several places counts once.

    Returns:
        The count for each kind, 0 included: 'NC', 'NCWS', 'conv', 'ConvWS', 'NCAffine', 'PN', 'GN',
        'LN', 'IN' and 'BN'.
    """
    census = dict.fromkeys(KINDS, 0)
    for module in model.modules():
        kind = layer_kind(module)
        if kind:
            census[kind] += 1
    return census


def layer_kind(module: nn.Module) -> str | None:
    """The kind of a convolution or norm, one of ``KINDS``, or None for other modules."""
    if isinstance(module, NormalizedConv | DeployedConv):
        return 'NCWS' if module.weight_standardize else 'NC'
    if isinstance(module, _ConvNd):
        name = type(module).__name__
        return 'ConvWS' if name.startswith(('ConvWS', 'ConvAWS', 'StdConv')) else 'conv'
    if isinstance(module, Gain):  # a part of its NC layer
        return None
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
