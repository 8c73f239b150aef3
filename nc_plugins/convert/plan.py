"""Decides for every convolution and norm of a model what it becomes, or why it stays.

The pairs of convolution and norm come from the order in which modules register their children (see
:func:`nc_plugins.layers.neighbours.neighbours`), so no example input is needed.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise

from torch import nn

from ..layers.neighbours import is_convolution, neighbours, norm_channels, ordered_children
from .kinds import TARGETS, conv_kind, has_form, known_as, make_conv, norm_kind, torch_class
from .swap import first_kind


@dataclass(frozen=True)
class Row:
    """One convolution or norm of the plan.

    Attributes:
        path: the first path of the module; ``others`` are those of a module with several.
        module: the module itself.
        what: its class and its size before the conversion.
        kind: what it becomes, such as 'NC' or 'GN', or None if it stays.
        reason: why it stays, or why it becomes something else than ``to`` says.
        partners: the first paths of the convolutions directly before a norm.
    """

    path: str
    module: nn.Module
    what: str
    kind: str | None
    reason: str = ''
    others: tuple[str, ...] = ()
    partners: tuple[str, ...] = ()


def make_plan(
    model: nn.Module, to: str, keep: Collection[str] = (), depthwise: str = 'keep'
) -> list[Row]:
    """The plan in the order of ``model.named_modules()``. It changes nothing."""
    return _Planner(model, to, keep, depthwise).rows()


class _Planner:
    def __init__(self, model, to, keep, depthwise) -> None:
        self.conv_to, self.norm_to = TARGETS[to]
        self.to, self.depthwise = to, depthwise
        self.paths = defaultdict(list)
        for path, module in model.named_modules(remove_duplicate=False):
            self.paths[module].append(path)
        self.kept = {module for module, paths in self.paths.items() if _matches(paths, keep)}
        self.norms_behind, self.convs_before = defaultdict(dict), defaultdict(dict)  # as sets
        for _, conv, _, norm, _ in neighbours(model):
            if norm_kind(norm):
                self.norms_behind[conv][norm] = None
                self.convs_before[norm][conv] = None
        self.conv_behind, self.norm_before = {}, {}  # in pre-activation networks
        for norm, conv in _pre_activations(model):
            if norm not in self.convs_before:
                self.conv_behind[norm] = conv
            self.norm_before[conv] = norm
        self.reasons = self._reasons_of_convs()

    def rows(self) -> list[Row]:
        rows = []
        for module, paths in self.paths.items():
            if is_convolution(module):
                kind, reason = self._plan_conv(module)
            elif norm_kind(module) or _is_other_norm(module):
                kind, reason = self._plan_norm(module)
            else:
                continue
            partners = tuple(self.paths[conv][0] for conv in self.convs_before.get(module, ()))
            if kind or reason:
                what = _describe(module)
                rows.append(Row(paths[0], module, what, kind, reason, tuple(paths[1:]), partners))
        return rows

    def _plan_conv(self, conv) -> tuple[str | None, str]:
        kind, wanted = conv_kind(conv), self._wanted(conv)
        if self.conv_to == 'plain' and kind in (wanted, None):
            return None, ''  # only the norms change
        first = first_kind(conv)
        if kind == wanted and (first == kind or conv not in self.reasons):
            return None, f'is {wanted} already'
        if conv in self.reasons:
            undo = first != kind and conv not in self.kept  # an earlier conversion
            return first if undo else None, self.reasons[conv]
        return wanted, ''

    def _becomes_nc(self, conv) -> bool:
        return (self._plan_conv(conv)[0] or conv_kind(conv)) in ('NC', 'NCWS')

    def _wanted(self, conv) -> str:
        # Weight standardisation is part of a network that was built with it.
        if first_kind(conv) in ('ConvWS', 'NCWS'):
            return {'NC': 'NCWS', 'plain': 'ConvWS'}.get(self.conv_to, self.conv_to)
        return self.conv_to

    def _reasons_of_convs(self) -> dict[nn.Module, str]:
        """Why convolutions stay. If one stays, so do all others that share a norm with it."""
        convs = [module for module in self.paths if is_convolution(module)]
        reasons = {conv: reason for conv in convs if (reason := self._reason(conv))}
        changed = True
        while changed:
            changed = False
            for before in self.convs_before.values():
                staying = [conv for conv in before if conv in reasons]
                for conv in before if staying else ():
                    if conv not in reasons:
                        path = self.paths[staying[0]][0]
                        reasons[conv] = f'shares the norm behind it with {path}, which stays'
                        changed = True
        return reasons

    def _reason(self, conv) -> str | None:
        kind = conv_kind(conv)
        if conv in self.kept:
            return 'keep'
        if any(norm in self.kept for norm in self.norms_behind.get(conv, ())):
            return 'the norm behind it is in keep'
        if kind is None:
            return _unknown(conv)
        if getattr(conv, 'affine', False) and kind in ('NC', 'NCWS'):
            return 'has a gain and bias of its own' if self.conv_to == 'plain' else None
        if kind in ('NC', 'NCWS') and self.conv_to == 'plain':
            return None  # the way back
        if not has_form(self._wanted(conv), conv):
            return f'there is no {self.conv_to} form of {torch_class(conv).__name__}'
        if self.conv_to in ('NC', 'NCWS'):
            if conv.in_channels // conv.groups * math.prod(conv.kernel_size) == 1:
                return 'a patch has one value, whose variance is 0'
            if conv.groups == conv.in_channels > 1 and self.depthwise == 'keep':
                return 'depthwise: a patch is one channel'
            try:
                make_conv(self.conv_to, conv)
            except ValueError as error:
                return str(error)
        if conv not in self.norms_behind and conv not in self.norm_before:
            return 'no norm behind it (a predictor, gate or projection)'
        return None

    def _plan_norm(self, norm) -> tuple[str | None, str]:
        kind = norm_kind(norm)
        if kind is None:
            return None, _unknown(norm)
        if norm in self.kept:
            return None, 'keep'
        if any(conv in self.kept for conv in self.convs_before.get(norm, ())):
            return None, 'the convolution before it is in keep'
        if isinstance(norm, nn.BatchNorm1d) and norm not in self.convs_before:
            return None, 'no convolution before it (features of a linear layer)'
        wanted, reason = self.norm_to, ''
        if wanted == 'NC' and (plain := self._why_not_affine(norm)):
            first = first_kind(norm)
            wanted, reason = 'GN' if first == 'BN' else first, plain
        if kind == wanted:
            return None, reason or f'is {wanted} already'
        if wanted == 'PN' and norm.weight is None:
            return None, 'has no weight and bias, which PN needs'
        return wanted, reason

    def _why_not_affine(self, norm) -> str | None:
        """Why a norm cannot become the affine of NC: nothing would normalise its input."""
        before = self.convs_before.get(norm)
        if before:
            staying = [conv for conv in before if not self._becomes_nc(conv)]
            return f'{self.paths[staying[0]][0]} before it stays' if staying else None
        conv = self.conv_behind.get(norm)
        if conv is not None and self._becomes_nc(conv):
            return None  # pre-activation: NC standardises the patches that come out of it
        return 'no convolution directly before it'


def _pre_activations(model: nn.Module) -> Iterator[tuple[nn.Module, nn.Module]]:
    """Norms and the convolutions that run behind them, in blocks that begin with a norm."""
    for path, parent in model.named_modules():
        children = [child for _, child in ordered_children(parent, path)]
        known = [child for child in children if is_convolution(child) or norm_kind(child)]
        if not known or not norm_kind(known[0]):
            continue
        # What has no parameters may stand between the two: activation, dropout.
        heavy = [child for child in children if child in known or not _is_light(child)]
        for norm, conv in pairwise(heavy):
            is_pair = norm_kind(norm) and is_convolution(conv)
            if is_pair and norm_channels(norm) == getattr(conv, 'in_channels', None):
                yield norm, conv


def _matches(paths: Iterable[str], keep: Collection[str]) -> bool:
    return any(
        fnmatchcase(path, pattern) or fnmatchcase(path, f'{pattern}.*')
        for path in paths
        for pattern in keep
    )


def _is_other_norm(module: nn.Module) -> bool:
    if isinstance(module, nn.LayerNorm):
        return True
    named = 'Norm' in type(module).__name__ and any(True for _ in module.parameters(recurse=False))
    return named and not any(is_convolution(part) for part in module.modules())


def _is_light(module: nn.Module) -> bool:
    """An activation, a dropout, a pooling: nothing that learns but the slope of a PReLU."""
    return isinstance(module, nn.PReLU) or not any(True for _ in module.parameters())


def _unknown(module: nn.Module) -> str:
    name = type(module).__name__
    if isinstance(module, nn.LayerNorm):
        return 'LayerNorm of the channels of each position or token'
    if hasattr(module, 'parametrizations'):
        return 'its weight is parametrized (torch.nn.utils.parametrize)'
    if isinstance(module, nn.modules.lazy.LazyModuleMixin):
        return f'{name} has no shape yet: run the model once before convert()'
    if is_convolution(module):
        return f'NC has no form of {known_as(module)}'
    return f'convert() does not know {known_as(module)}'


def _describe(module: nn.Module) -> str:
    name = type(module).__name__
    if not is_convolution(module):
        channels = norm_channels(module) or getattr(module, 'normalized_shape', '')
        return f'{name}({channels})'
    size = 'x'.join(map(str, _as_tuple(module.kernel_size)))
    groups = getattr(module, 'groups', 1)
    text = f'{name} {size}, {getattr(module, "in_channels", "?")} -> {module.out_channels}'
    return text + (f', {groups} groups' if groups > 1 else '')


def _as_tuple(value) -> tuple:
    return tuple(value) if isinstance(value, tuple | list) else (value,)
