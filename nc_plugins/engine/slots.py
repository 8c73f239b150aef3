"""Compares the NC slots of a config with the layers that the model has.

Many classes of OpenMMLab take ``conv_cfg`` and ``norm_cfg`` and do not use them, or use them for a
part of their layers. Such a model trains without a word, and half of it is not swapped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from torch import nn

from ..layers import NCAffine, PositionalNorm
from ..layers.census import layer_kind
from ..layers.conv import NormalizedConv
from ..layers.neighbours import neighbours
from .usage import type_name

_CONVOLUTIONS = {'NC', 'NC1d', 'NC2d', 'NC3d', 'NCWS', 'NCDeconv'}
_NORMS = {'NC': NCAffine, 'NCAffine': NCAffine, 'PN': PositionalNorm}


class Slot(NamedTuple):
    """A key of the config that asks for layers of this package, and where they should be."""

    key: str
    type: str
    module: nn.Module
    inner: frozenset[nn.Module]  # modules that have a slot of the same name for themselves


def ignored_slots(cfg: Mapping, model: nn.Module) -> list[str]:
    """One sentence for each slot of the config ``cfg`` that did not reach all its layers.

    Args:
        cfg: the whole config, with ``model``.
        model: the model that was built from it.
    """
    tree = cfg.get('model')
    if not isinstance(tree, Mapping):
        return []  # the Runner was given a model
    if type_name(tree) == 'NCModel' and tree.get('to', 'NC') not in ('NC', 'NCWS'):
        return []  # it replaces the layers of the slots
    top = {key: value for key, value in cfg.items() if _is_slot(key, value)}
    slots = [Slot(key, type_name(value), model, frozenset()) for key, value in top.items()]
    slots += [slot._replace(key=f'model.{slot.key}') for slot in _slots(inner_model(tree), model)]
    paths = {module: path for path, module in model.named_modules()}
    return [text for slot in slots if (text := _complaint(slot, paths))]


def inner_model(cfg: Mapping) -> Mapping:
    """The config of the model that NCModel converts; other configs as they are."""
    return cfg['model'] if type_name(cfg) == 'NCModel' else cfg


def _slots(cfg: Mapping, module: nn.Module, path: str = '') -> Iterator[Slot]:
    for key, value in cfg.items():
        if _is_slot(key, value):
            yield Slot(path + key, type_name(value), module, _with_own(key, cfg, module))
        for name, part in _parts(key, value):
            yield from _slots(part, _child(module, name), f'{path}{name}.')


def _parts(key: str, value) -> Iterator[tuple[str, Mapping]]:
    """The dicts in a value of a config, with their keys."""
    if isinstance(value, Mapping):
        yield key, value
    elif isinstance(value, (list, tuple)):
        yield from ((f'{key}.{i}', v) for i, v in enumerate(value) if isinstance(v, Mapping))


def _child(module: nn.Module, name: str) -> nn.Module:
    """The module that was built from the part ``name``, or ``module`` if that cannot be seen."""
    try:
        return module.get_submodule(name)
    except AttributeError:
        return module


def _with_own(slot: str, cfg: Mapping, module: nn.Module) -> frozenset[nn.Module]:
    own = set()
    for key, value in cfg.items():
        for name, part in _parts(key, value):
            child = _child(module, name)
            if child is not module:
                own |= set(child.modules()) if slot in part else _with_own(slot, part, child)
    return frozenset(own)


def _is_slot(key: str, value) -> bool:
    if not (isinstance(value, Mapping) and key.endswith('_cfg')):
        return False
    return type_name(value) in (_NORMS if 'norm' in key else _CONVOLUTIONS)


def _complaint(slot: Slot, paths: Mapping[nn.Module, str]) -> str | None:
    if 'norm' in slot.key.rpartition('.')[2]:
        what, wanted = 'norms', _NORMS[slot.type]
        kinds = ('NCAffine', 'PN', 'GN', 'BN', 'IN')
        found = [m for m in slot.module.modules() if layer_kind(m) in kinds]
    else:
        what, wanted = 'convolutions with a norm', NormalizedConv
        before_norm = {pair.conv for pair in neighbours(slot.module)}
        found = [
            m for m in slot.module.modules() if m in before_norm or isinstance(m, NormalizedConv)
        ]
    found = [m for m in found if m not in slot.inner]
    others = [m for m in found if not isinstance(m, wanted)]
    name, given = type(slot.module).__name__, f'{slot.key} (type {slot.type!r})'
    convert = "convert the model instead (model type 'NCModel', or tools/train.py --to NC)"
    if len(others) == len(found):
        rest = f', and its {len(others)} {what} stay: {convert}' if others else ''
        return f'{given} had no effect: {name} builds nothing from it{rest}'
    if others:
        first = f'{paths[others[0]]} ({type(others[0]).__name__})'
        count = f'{len(found) - len(others)} of the {len(found)} {what} in {name}'
        return f'{given} reached {count}, but not {first}: {convert}'
    return None
