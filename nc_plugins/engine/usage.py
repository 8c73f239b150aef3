"""One sentence for a user's mistake, a traceback for everything else."""

from __future__ import annotations

import difflib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

from nc_plugins.datasets.loading import DataError
from nc_plugins.layers.half_swap import HalfSwapError

PACKAGE = str(Path(__file__).resolve().parents[1])
UNKNOWN_KEY = re.compile(r"([\w.<>]+)\(\) got an unexpected keyword argument '(\w+)'")
UNKNOWN_TYPE = re.compile(r'(\S+) is not in the (\S+) registry')


class UsageError(Exception):
    """The user asked for what cannot be; the message says what came and what is wanted."""


def run_tool(main: Callable[[], None]) -> int:
    """Run ``main`` and return an exit code: 0, or 1 after ``error: ...`` on stderr."""
    try:
        main()
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return 130
    except UsageError as e:
        print(f'error: {one_line(e)}', file=sys.stderr)
        return 1
    return 0


def explain(error: Exception) -> str | None:
    """The sentence for a mistake in config or arguments, None for what may be a bug.

    Only where an exception was raised tells them apart, so this reads its traceback. It is meant
    for failures before the end of the first training iteration: by then a config has shown itself.
    """
    text = one_line(error)
    if isinstance(error, HalfSwapError):
        return text
    if isinstance(error, DataError):
        return error.sentence
    frames = traceback.extract_tb(error.__traceback__)
    # Where mmengine and mmcv turn config dicts into objects.
    building = any(frame.name.startswith(('build_', 'from_cfg')) for frame in frames)
    if building and isinstance(error, TypeError) and (match := UNKNOWN_KEY.search(text)):
        where, key = match.groups()
        return f"unknown key '{key}' for {where.removesuffix('.__init__')} in the config"
    if building and isinstance(error, KeyError):
        if match := UNKNOWN_TYPE.search(text):
            name, registry = match.groups()
            return f"unknown type '{name}': it is not in the {registry} registry" + _near_type(
                name, registry
            )
        if text.startswith('Cannot find') and (
            name := _local(error, frames[-1].name, 'layer_type')
        ):
            # mmcv means to name the type here and prints None.
            return f"unknown type '{name}' for {frames[-1].name}" + _near_type(name, 'model')
        if 'must contain the key "type"' in text:
            return f'a component of the config has no type: {text}'
    if any(frame.name == '_load_checkpoint' for frame in frames):
        name = _local(error, '_load_checkpoint', 'filename')
        return f'checkpoint {name} cannot be read ({type(error).__name__}: {text})'
    if _raised_here(frames) and isinstance(error, (TypeError, ValueError, OSError, ImportError)):
        return text
    return None


def is_first_process() -> bool:
    """Whether this is rank 0, also before torch.distributed knows, under any launcher."""
    ranks = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')
    return next((os.environ[name] for name in ranks if name in os.environ), '0') == '0'


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ''


def one_line(error: BaseException) -> str:
    # str() of a KeyError is the repr of its message.
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return ' '.join(str(text).split()) or type(error).__name__


def _near_type(name: str, registry: str) -> str:
    from mmengine.registry import Registry, root

    kind = registry.rpartition('::')[2]
    roots = [r for r in vars(root).values() if isinstance(r, Registry) and r.name == kind]
    names = {n for r in roots for owner in (r, *r.children.values()) for n in owner.module_dict}
    return did_you_mean(name.rpartition('.')[2], names)


def _local(error: Exception, function: str, name: str):
    """A local variable of the frame that ``error`` passed through, None if there is none."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == function:
            return frame.f_locals.get(name)
    return None


def _raised_here(frames: traceback.StackSummary) -> bool:
    """Whether the error is a ``raise`` of this package: its checks speak in sentences."""
    last = frames[-1]
    return last.filename.startswith(PACKAGE) and (last.line or '').startswith('raise ')
