"""Finds the keys of a config that an exception comes from.

A config names classes, and the traceback of an exception names places in source files. A key is
found where a place lies inside the source of a class that the key names.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterable, Iterator
from functools import cache

from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.registry import Registry, root
from torch import nn

from .usage import type_name

# Base classes that most components share, so that they tell nothing.
SHARED = {object, dict, list, nn.Module, nn.Sequential, nn.ModuleList, BaseModule}


def dicts(value, path: str = '') -> Iterator[tuple[str, dict]]:
    """Yield the dotted key and the value of every dict in a config, outer dicts first."""
    if isinstance(value, (dict, Config)):
        if path:
            yield path, value
        items = value.items()
    else:
        items = enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, item in items:
        yield from dicts(item, f'{path}.{key}' if path else str(key))


def blamed(error: BaseException, components: dict[str, dict]) -> list[str]:
    """The innermost keys of ``components`` whose classes appear in the traceback of ``error``.

    There are several if the config uses a class more than once.
    """
    classes = {key: named_classes(component) for key, component in components.items()}
    keys: list[str] = []
    for frame, line in traceback.walk_tb(error.__traceback__):
        place = frame.f_code.co_filename, line
        here = [key for key, named in classes.items() if any(_contains(c, *place) for c in named)]
        keys = [key for key in here if is_inside(key, keys)] or here or keys
    return keys


def is_inside(key: str, outer: Iterable[str]) -> bool:
    """True if ``key`` is one of the keys ``outer`` or below one of them."""
    return any(f'{key}.'.startswith(f'{parent}.') for parent in outer)


def named_classes(component: dict) -> list:
    """The class or function that a config dict names; one of each package that has the name."""
    if callable(component.get('type')):
        return [component['type']]
    name = type_name(component)
    return [known[name] for known in _registered() if name in known]


def registered_names(registry: str | None = None) -> set[str]:
    """The names in all registries, or in those called ``registry`` ('model', 'hook', ...)."""
    return {name for known in _registered(registry) for name in known}


def _registered(name: str | None = None) -> list[dict]:
    roots = [r for r in vars(root).values() if isinstance(r, Registry) and name in (None, r.name)]
    return [registry.module_dict for top in roots for registry in (top, *top.children.values())]


def _contains(cls, file: str, line: int) -> bool:
    bases = [b for b in inspect.getmro(cls) if b not in SHARED] if inspect.isclass(cls) else [cls]
    return any(_file(base) == file and line in _lines(base) for base in bases)


@cache
def _file(cls) -> str | None:
    try:
        return inspect.getsourcefile(cls)
    except TypeError:  # built in, or a functools.partial
        return None


@cache
def _lines(cls) -> range:
    lines, first = inspect.getsourcelines(cls)
    return range(first, first + len(lines))
