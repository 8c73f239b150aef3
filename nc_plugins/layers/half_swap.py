"""Reports an edit that was made by half, before the first training iteration.

``conv_cfg=dict(type='NC'), norm_cfg=dict(type='NC')`` is the whole edit. With norm_cfg only,
nothing is normalised. With conv_cfg only, BatchNorm stays and the result depends on the batch
again. Both would train without a word.

The check needs the whole model, and a layer does not know the model that it is part of. So a layer
registers a forward pre-hook for all modules when it is built. The first module that is called with
the layer inside is the model. The hook checks the model once and removes itself.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakSet

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.module import register_module_forward_pre_hook

from .neighbours import neighbours

_CONVERT = "convert the model (nc_plugins.convert, or type='NCModel' in a config)"
_waiting: WeakSet[nn.Module] = WeakSet()  # layers whose model has not been checked
_handle = None  # of the hook, while layers wait
# Called with the model before the check. engine/first_iteration.py sets it.
before_first_training_forward: Callable[[nn.Module], None] | None = None


class HalfSwapError(RuntimeError):
    """A convolution and the norm behind it do not go together. The message names the edit."""


def check_at_first_forward(layer: nn.Module) -> None:
    """Check the model that ``layer`` is part of when it is first called in training mode."""
    global _handle
    if layer._swap_checked:
        return
    _waiting.add(layer)
    if _handle is None:
        _handle = register_module_forward_pre_hook(_before_forward)


def _before_forward(module: nn.Module, args: tuple) -> None:
    if torch.compiler.is_compiling():
        return
    layers = [layer for layer in module.modules() if layer in _waiting]
    if any(layer.training for layer in layers):
        if before_first_training_forward is not None:
            before_first_training_forward(module)
        check_half_swap(module)
        for layer in layers:
            layer._swap_checked = layer is not module  # a layer by itself is not the model
    for layer in layers:  # those that are not checked wait again after train()
        _waiting.discard(layer)
    if not _waiting:
        _remove_hook()


def _remove_hook() -> None:
    global _handle
    if _handle is not None:
        _handle.remove()
    _handle = None


def check_half_swap(model: nn.Module) -> None:
    """Check each convolution in ``model`` and the norm that its parent registers behind it.

    Raises:
        HalfSwapError: NCAffine behind a convolution that is not NC, or BatchNorm behind NC. The
            message names both modules by path and the edit that mends it.
    """
    from .conv import NormalizedConv
    from .norm import NCAffine

    for conv_path, conv, norm_path, norm, parent in neighbours(model):
        # Not the class of ``conv`` itself: it may be wrapped, for example by torch.compile.
        normalizes = [m for m in conv.modules() if isinstance(m, NormalizedConv)]
        if isinstance(norm, NCAffine) and not normalizes and not norm.allow_plain:
            raise HalfSwapError(
                f"{norm_path} (norm_cfg type 'NC') comes after {conv_path} "
                f'({type(conv).__name__}), which normalises nothing: {_conv_edit(conv, parent)}'
            )
        if isinstance(norm, _BatchNorm) and any(not m.allow_bn for m in normalizes):
            raise HalfSwapError(
                f'{norm_path} ({type(norm).__name__}) comes after {conv_path} '
                "(conv_cfg type 'NC'), so the result depends on the batch again: set "
                "norm_cfg=dict(type='NC') there; if it is set, "
                f'{type(parent).__name__} does not use it: {_CONVERT}, or '
                "set conv_cfg=dict(type='NC', allow_bn=True) to keep BatchNorm"
            )


def _conv_edit(conv: nn.Module, parent: nn.Module) -> str:
    keep = "norm_cfg=dict(type='NC', allow_plain=True) to train it without normalisation"
    if isinstance(conv, nn.modules.conv._ConvNd):
        return (
            f"set conv_cfg=dict(type='NC') there; if it is set, {type(parent).__name__} does not "
            f"use it: {_CONVERT}, or set norm_cfg=dict(type='GN', num_groups=...) there, or {keep}"
        )
    return (
        f'{type(conv).__name__} has no NC form, so set '
        f"norm_cfg=dict(type='GN', num_groups=...) there, or {keep}"
    )
