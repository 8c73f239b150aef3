"""Catches half a swap in the first training forward, with nothing but the layers themselves.

``conv_cfg=dict(type='NC'), norm_cfg=dict(type='NC')`` is the whole edit. With the second half alone
nothing is normalised; with the first alone BatchNorm, the usual default, is left standing and the
result depends on the batch again. Either would train without a word. So NC convolutions mark the
tensors they return: NCAffine looks for the mark, and while the first iteration runs so does a
forward pre-hook on every module, which speaks up for BatchNorm.
"""

from __future__ import annotations

from weakref import WeakSet, ref

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.module import register_module_forward_pre_hook

_MARK = '_nc_allow_bn'


class HalfSwapError(RuntimeError):
    """Convolution and norm slot do not belong together; the message says which edit mends it."""


def mark(layer: nn.Module, out: Tensor) -> Tensor:
    """Mark what an NC convolution returns in training, and watch for BatchNorm the first time."""
    if torch.compiler.is_compiling():
        return out
    if layer.training:
        _watch.passed(layer)
        setattr(out, _MARK, layer.allow_bn)
    else:
        _watch.stop()
    return out


def require_mark(norm: nn.Module, input: Tensor) -> None:
    """Raise unless ``input`` comes from an NC convolution."""
    if not hasattr(input, _MARK):
        raise HalfSwapError(
            f'{type(norm).__name__}({norm.num_channels}) in the norm slot does not follow an NC '
            'convolution directly, so its input may not be normalised: set '
            "conv_cfg=dict(type='NC') beside norm_cfg=dict(type='NC'), or "
            "norm_cfg=dict(type='NC', allow_plain=True) if that is meant"
        )


class _BatchNormWatch:
    """A forward pre-hook on all modules, there only while some NC layer runs its first iteration.

    The layer that set it up takes it down when it runs again, so later iterations pay nothing.
    """

    def __init__(self) -> None:
        self.handle = None
        self.owner = None  # weakly; its end takes the hook down too
        self.passed_layers: WeakSet[nn.Module] = WeakSet()

    def passed(self, layer: nn.Module) -> None:
        if layer in self.passed_layers:
            if self.owner is not None and self.owner() is layer:
                self.stop()
            return
        self.passed_layers.add(layer)
        if self.handle is None:
            self.owner = ref(layer, lambda _: self.stop())
            self.handle = register_module_forward_pre_hook(self._look)

    def stop(self) -> None:
        if self.handle is not None:
            self.handle.remove()
        self.handle = self.owner = None

    def _look(self, module: nn.Module, args: tuple) -> None:
        if not isinstance(module, _BatchNorm) or not args:
            return
        if getattr(args[0], _MARK, True) is False:
            self.stop()
            self.passed_layers.clear()  # run again, it says so again
            raise HalfSwapError(
                f'{type(module).__name__}({module.num_features}) follows an NC convolution, so the '
                "result depends on the batch again: set norm_cfg=dict(type='NC') beside "
                "conv_cfg=dict(type='NC'), or conv_cfg=dict(type='NC', allow_bn=True) if that is "
                'meant'
            )


_watch = _BatchNormWatch()
