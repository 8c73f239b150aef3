"""The rules for dtypes: float32 inside, and the output dtype under autocast."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

_NOTHING = nullcontext()


def autocast_enabled(device: str) -> bool:
    """Whether autocast is on for a device type. The 'meta' device has no autocast."""
    return device != 'meta' and torch.is_autocast_enabled(device)


def without_autocast(device: str):
    """A context in which autocast is off for a device type."""
    if autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return _NOTHING


def output_dtype(input: Tensor) -> torch.dtype:
    """The dtype that nn.Conv2d returns for ``input``: autocast's, except for float64."""
    device = input.device.type
    if autocast_enabled(device) and input.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return input.dtype


def upcast(x: Tensor) -> Tensor:
    """``x`` in float32, or unchanged in float64. Statistics are never taken in half precision."""
    return x if x.dtype == torch.float64 else cast(x, torch.float32)


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``x.to(dtype)`` without an operation in the graph where the dtype is right already.

    An autograd.Function that returns one tensor under two names loses its gradient under
    torch.compile (torch 2.11), and ``x.to(x.dtype)`` returns ``x``.
    """
    return x if x.dtype == dtype else x.to(dtype)
