"""Checkpoints are data: loading one never runs code that is stored in it.

A pickle can call any function. mmengine retries a checkpoint that torch refuses without the
protection of ``weights_only``, and its list of allowed functions has ``getattr``, which leads to
every other function.
"""

from __future__ import annotations

import os
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.model import is_model_wrapper
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint
from torch import nn

# torch.load then uses weights_only=True, whatever its caller asks for.
_FORCE = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'


class CheckpointError(ValueError):
    """A checkpoint cannot be read, written or used. The message is one sentence."""


def _statistic(owner: type, name: str):
    """The only use of ``getattr`` in a checkpoint of mmengine: the methods of HistoryBuffer."""
    if owner is not HistoryBuffer or name not in ('min', 'max', 'mean', 'current'):
        raise UnpicklingError(f'getattr({owner!r}, {name!r}) is not allowed')
    return getattr(owner, name)


def allowed_globals() -> list:
    """Classes and functions that checkpoints of mmengine need besides tensors.

    They build NumPy arrays and mmengine's HistoryBuffer, and nothing else.
    """
    # NumPy 2 renamed numpy.core, and files of both kinds exist.
    core = getattr(np, '_core', None) or np.core
    numpy = [
        (function, f'numpy.{module}.multiarray.{function.__name__}')
        for function in (core.multiarray._reconstruct, core.multiarray.scalar)
        for module in ('core', '_core')
    ]
    dtypes = [type(np.dtype(name)) for name in ('bool', 'i1', 'u1', 'i4', 'u4', 'i8', 'f4', 'f8')]
    return [slice, np.ndarray, np.dtype, HistoryBuffer, (_statistic, 'builtins.getattr'),
            *numpy, *dtypes]  # fmt: skip


def protect(trust: bool = False) -> None:
    """Make every ``torch.load`` of this process safe, or none of them if ``trust`` is True."""
    if trust:
        os.environ.pop(_FORCE, None)
        CheckpointLoader.register_scheme('', mmengine_checkpoint.load_from_local, force=True)
        return
    os.environ[_FORCE] = '1'
    CheckpointLoader.register_scheme('', load_from_local, force=True)
    # For downloads. mmengine adds its own list, with getattr, around each call of torch.load.
    mmengine_checkpoint.get_torch_safe_globals = allowed_globals


def load_from_local(filename: str, map_location=None) -> dict:
    """Read a checkpoint of the local disk. After :func:`protect`, mmengine reads files with it.

    Raises: CheckpointError if the file is broken, is not a checkpoint, or contains objects that
        could run code.
    """
    path = os.path.expanduser(filename)
    # Here and not once for all: on exit, mmengine's own safe_globals forgets the same names.
    with torch.serialization.safe_globals(allowed_globals()):
        try:
            content = torch.load(path, map_location=map_location, weights_only=True)
        except Exception as e:  # broken files raise many types of exceptions
            raise CheckpointError(_explained(path, e)) from e
    if not isinstance(content, dict):
        raise CheckpointError(f'checkpoint {path} holds a {type(content).__name__} and no weights')
    return content


def load_checkpoint(path: str | Path) -> dict:
    """Read a checkpoint to the CPU, as mmengine does. See :func:`load_from_local`."""
    return CheckpointLoader.load_checkpoint(str(path), map_location='cpu', logger='silent')


class CheckpointMatchHook(Hook):
    """Refuses a checkpoint whose weights are not those of the model.

    Register it with priority LOWEST, so that it sees the weights that an EMA hook has chosen.

    Args:
        whole: refuse a checkpoint of which only a part fits. Otherwise a part is logged, and only
            a checkpoint without any fitting weight is refused.

    Raises: CheckpointError with the number of weights that are missing, unknown or of another
        shape.
    """

    def __init__(self, whole: bool) -> None:
        self.whole = whole

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        fits, problem = match(model, checkpoint.get('state_dict', checkpoint))
        if problem and (self.whole or not fits):
            raise CheckpointError(problem)
        if problem:
            runner.logger.warning(problem)


def match(model: nn.Module, state: dict) -> tuple[int, str]:
    """Load ``state`` into ``model``.

    Returns: the number of weights of ``model`` that fit, and a sentence with all counts. The
        sentence is empty if every weight fits and ``state`` has no others.
    """
    state = {key.removeprefix('module.'): value for key, value in state.items()}
    own = model.state_dict()
    shapes = [k for k, v in state.items() if k in own and v.shape != own[k].shape]
    fitting = {key: value for key, value in state.items() if key not in shapes}
    _, unknown = model.load_state_dict(fitting, strict=False)
    # A layer with its own gain takes the weights of a plain convolution without an error, and
    # before version 0.1 the gain had another name.
    missing = [
        key
        for key in own
        if key not in state and key.replace('own_gain.weight', 'gain') not in state
    ]
    fits = len(own) - len(missing) - len(shapes)
    if not (missing or unknown or shapes):
        return fits, ''
    kinds = (
        (missing, 'missing in the checkpoint'),
        (shapes, 'of another shape'),
        (unknown, 'unknown to the model'),
    )
    counts = [f'{len(keys)} {kind} (such as {keys[0]})' for keys, kind in kinds if keys]
    return fits, (
        f'the checkpoint fits {fits} of the {len(own)} weights of the model: {", ".join(counts)}; '
        'use the config with which it was trained'
    )


def _explained(path: str, error: Exception) -> str:
    """One sentence about an exception that ``torch.load`` has raised."""
    if not isinstance(error, UnpicklingError):
        text = ' '.join(str(error).split())
        return f'checkpoint {path} cannot be read ({type(error).__name__}: {text[:200]})'
    if unsafe := _unsafe(path):
        return (
            f'checkpoint {path} contains objects that could run code ({unsafe}): if you trust its '
            'author, add --trust-checkpoint'
        )
    return (
        f'checkpoint {path} cannot be read: it is broken, is not a file of torch.save, or contains '
        'objects that could run code (--trust-checkpoint loads those)'
    )


def _unsafe(path: str) -> str:
    """The objects that ``weights_only`` refuses; '' if the file is no pickle of torch."""
    try:
        refused = set(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # broken, or of a format before torch 1.6
        return ''
    return ', '.join(sorted(refused)[:5]) or 'getattr'
