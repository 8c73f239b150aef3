"""Finds the norm behind each convolution of a model, without an example input."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from torch import nn


class Neighbours(NamedTuple):
    """A convolution and a norm that their parent registers one after the other."""

    conv_path: str
    conv: nn.Module
    norm_path: str
    norm: nn.Module
    parent: nn.Module


def neighbours(model: nn.Module) -> Iterator[Neighbours]:
    """Every convolution whose next sibling is a norm with as many channels.

    Registration order is the order of execution in the networks of torchvision, timm and OpenMMLab.
    mmcv's ConvModule says its order, which counts instead. Between the two there may be an
    nn.Identity. The convolution may be the last layer of an nn.Sequential, and the norm the first
    of one. Both may be in one only if their parent is an nn.Sequential itself: elsewhere two of
    them in a row are often branches. A ModuleList of convolutions and one of norms are pairs in
    their order, as in Res2Net.
    """
    for path, parent in model.named_modules():
        items = ordered_children(parent, path)
        opened = [(child, leaves) for p, child in items if (leaves := open_sequential(p, child))]
        for index, ((one, before), (other, behind)) in enumerate(pairwise(opened)):
            branches = _runs_in_order(one) and _runs_in_order(other)
            after = behind[1:] or next((leaves for _, leaves in opened[index + 2 :]), [])
            # In the order conv1, conv2, norm1, norm2 siblings are no pairs.
            in_turn = after and norm_channels(after[0][1])
            if not in_turn and (_runs_in_order(parent) or not branches):
                yield from _pairs(before[-1], behind[0], parent)


def _pairs(before: tuple, behind: tuple, parent: nn.Module) -> Iterator[Neighbours]:
    """The pair of two siblings, or those of a ModuleList of convolutions and one of norms."""
    (conv_path, conv), (norm_path, norm) = before, behind
    if isinstance(conv, nn.ModuleList) and isinstance(norm, nn.ModuleList):
        convs, norms = ordered_children(conv, conv_path), ordered_children(norm, norm_path)
        if len(convs) == len(norms):
            for pair in zip(convs, norms, strict=True):
                yield from _pairs(*pair, parent)
    elif is_convolution(conv) and norm_channels(norm) == conv.out_channels:
        yield Neighbours(conv_path, conv, norm_path, norm, parent)


def is_convolution(module: nn.Module) -> bool:
    """Whether the module has the attributes of a convolution, also one that torch does not have."""
    return all(hasattr(module, name) for name in ('weight', 'kernel_size', 'out_channels'))


def norm_channels(norm: nn.Module) -> int | None:
    """Number of channels if the module is a norm over channels, else None."""
    name = type(norm).__name__
    if name.startswith('FrozenBatchNorm'):  # torchvision's does not say it
        return len(norm.weight)
    if name.startswith('LayerNormAct2d'):  # timm's PositionalNorm with an activation
        return norm.normalized_shape[0]
    if not hasattr(norm, 'eps'):  # a network may have num_features too
        return None
    return getattr(norm, 'num_features', getattr(norm, 'num_channels', None))


def ordered_children(parent: nn.Module, path: str) -> list[tuple[str, nn.Module]]:
    """The children of ``parent`` with their paths, in the order in which it runs them."""
    prefix = f'{path}.' if path else ''
    children = [(prefix + name, m) for name, m in parent._modules.items() if m is not None]
    order = getattr(parent, 'order', None)  # of mmcv's ConvModule, such as ('conv', 'norm', 'act')
    if not isinstance(order, (tuple, list)) or not {'conv', 'norm'} <= set(order):
        return children

    def position(item) -> int:
        child = item[1]
        role = 'conv' if is_convolution(child) else 'norm' if norm_channels(child) else 'act'
        return order.index(role) if role in order else -1  # the padding comes first

    return sorted(children, key=position)


def _runs_in_order(module: nn.Module) -> bool:
    return type(module).forward is nn.Sequential.forward


def open_sequential(path: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules that an nn.Sequential runs one after the other; other modules as they are."""
    if isinstance(module, nn.Identity):
        return []
    if not _runs_in_order(module):
        return [(path, module)]
    children = ordered_children(module, path)
    return [leaf for item in children for leaf in open_sequential(*item)]
