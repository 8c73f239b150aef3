"""The rules for dtypes: float32 inside, the output dtype under autocast, the range of float16."""

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


def input_scale(dtype: torch.dtype) -> float:
    """The factor of the centred input in a convolution of this dtype.

    Float16 ends at 65504, which the sum over a patch of large values may exceed, although the
    output, which is that sum times rstd, does not. A deviation from the mean below 2**-9 then has
    fewer digits, but it is also smaller than the root of the default eps, 0.003.
    """
    return 2.0**-5 if dtype == torch.float16 else 1.0


def gradient_scale(grad: Tensor, rstd: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """The factor of the gradient of a convolution's output, grad * rstd, in float16. Else None.

    rstd is 316 in a constant patch with the default eps. The factor makes the largest gradient 256,
    so that sums of them stay below 65504. Small gradients get the inverse of :func:`input_scale`.
    """
    if dtype != torch.float16 or grad.numel() == 0:
        return None
    largest = torch.linalg.vector_norm(grad, torch.inf, dtype=torch.float32)
    if rstd is not None:
        largest = largest * rstd.nan_to_num(0.0).amax()
    # An infinite gradient must not make the others 0 or NaN.
    return (256 / largest).nan_to_num(2.0**-17).clamp(2.0**-17, 1 / input_scale(dtype))


def upcast(x: Tensor) -> Tensor:
    """``x`` in float32, or unchanged in float64. Statistics are never taken in half precision."""
    return x if x.dtype == torch.float64 else cast(x, torch.float32)


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``x.to(dtype)`` without an operation in the graph where the dtype is right already.

    An autograd.Function that returns one tensor under two names loses its gradient under
    torch.compile (torch 2.11), and ``x.to(x.dtype)`` returns ``x``.
    """
    return x if x.dtype == dtype else x.to(dtype)
