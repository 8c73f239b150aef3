"""Turns an exception into one sentence if the config or the arguments caused it."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

from nc_plugins.datasets.loading import DataError
from nc_plugins.layers.half_swap import HalfSwapError

from .safe_loading import CheckpointError
from .usage import did_you_mean, one_line

PACKAGE = str(Path(__file__).resolve().parents[1])
UNKNOWN_KEY = re.compile(r"([\w.<>]+)\(\) got an unexpected keyword argument '(\w+)'")
UNKNOWN_TYPE = re.compile(r'(\S+) is not in the (\S+) registry')


def explain(error: Exception) -> str | None:
    """A sentence for a mistake in the config or the arguments, None for a possible bug.

    mmengine raises the same exception types for mistakes and for bugs, so this function looks at
    the traceback. It is meant for errors before the end of the first training iteration. A config
    that has trained for one iteration has no such mistakes.
    """
    text = one_line(error)
    if isinstance(error, (HalfSwapError, CheckpointError)):
        return text
    if isinstance(error, DataError):
        return error.sentence
    frames = traceback.extract_tb(error.__traceback__)
    # The functions in which mmengine and mmcv turn config dicts into objects.
    building = any(frame.name.startswith(('build_', 'from_cfg')) for frame in frames)
    if building and isinstance(error, TypeError) and (match := UNKNOWN_KEY.search(text)):
        where, key = match.groups()
        return f"unknown key '{key}' for {where.removesuffix('.__init__')} in the config"
    if building and isinstance(error, KeyError):
        if match := UNKNOWN_TYPE.search(text):
            name, registry = match.groups()
            near = _near_type(name, registry)
            return f"unknown type '{name}': it is not in the {registry} registry{near}"
        # mmcv's message has None in place of the type.
        function = frames[-1].name
        name = _local(error, function, 'layer_type') if text.startswith('Cannot find') else None
        if name:
            return f"unknown type '{name}' for {function}" + _near_type(name, 'model')
        if 'must contain the key "type"' in text:
            return f'a component of the config has no type: {text}'
    if any(frame.name == '_load_checkpoint' for frame in frames):
        name = _local(error, '_load_checkpoint', 'filename')
        return f'checkpoint {name} cannot be read ({type(error).__name__}: {text})'
    if _raised_here(frames) and isinstance(error, (TypeError, ValueError, OSError, ImportError)):
        return text
    return None


def _near_type(name: str, registry: str) -> str:
    from mmengine.registry import Registry, root

    kind = registry.rpartition('::')[2]
    roots = [r for r in vars(root).values() if isinstance(r, Registry) and r.name == kind]
    names = {n for r in roots for owner in (r, *r.children.values()) for n in owner.module_dict}
    return did_you_mean(name.rpartition('.')[2], names)


def _local(error: Exception, function: str, name: str):
    """The variable ``name`` of the first frame of ``function`` in the traceback, or None."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == function:
            return frame.f_locals.get(name)
    return None


def _raised_here(frames: traceback.StackSummary) -> bool:
    """True if this package raised the error on purpose: its messages are sentences."""
    last = frames[-1]
    return last.filename.startswith(PACKAGE) and (last.line or '').startswith('raise ')
