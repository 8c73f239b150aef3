"""Memory formats and allocation of the Triton backend, and integers. Does not import Triton."""

from __future__ import annotations

import torch
from torch import Tensor

from .geometry import Geometry, regular_strides

# triton.cdiv and triton.next_power_of_2 take 2 microseconds, and a layer calls them 20 times.


def cdiv(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def next_power_of_2(n: int) -> int:
    """The smallest power of two that is at least n, for n >= 1."""
    return 1 << (n - 1).bit_length()


def memory_format(input: Tensor, weight: Tensor) -> torch.memory_format:
    """The format of the input, or of the weight if the input (one channel or pixel) is in both."""
    decisive = weight if is_channels_last(input) and input.is_contiguous() else input
    channels_last = is_channels_last(decisive) and not decisive.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format


def is_channels_last(x: Tensor) -> bool:
    """Whether a tensor is channels_last in memory. Also true if it is in both formats."""
    return x.is_contiguous(memory_format=torch.channels_last)


def dense(x: Tensor) -> Tensor:
    """The input or weight in one of the two memory formats that the kernels read."""
    return regular_strides(x) if is_channels_last(x) else x.contiguous()


def empty_output(input: Tensor, weight: Tensor, geometry: Geometry, dtype: torch.dtype) -> Tensor:
    """An uninitialized output [N, O, H', W'] in the :func:`memory_format` of the tensors."""
    shape = (input.shape[0], weight.shape[0], *geometry.output_size(input.shape[2:]))
    format = memory_format(input, weight)
    return torch.empty(shape, dtype=dtype, device=input.device, memory_format=format)


def empty_map(y: Tensor, groups: int) -> Tensor:
    """An uninitialized single-channel map of the output y, [N, G, H', W'] in float32."""
    shape = (y.shape[0], groups, *y.shape[2:])
    return torch.empty(shape, dtype=torch.float32, device=y.device)


def format_of(x: Tensor) -> torch.memory_format:
    """channels_last also if a tensor is in both formats."""
    return torch.channels_last if is_channels_last(x) else torch.contiguous_format


def strides(x: Tensor) -> tuple[int, int, int]:
    """(image, channel, pixel) in elements. x.stride() is arbitrary for axes of length one."""
    channels, pixels = x.shape[1], x.shape[2:].numel()
    inner = (1, channels) if is_channels_last(x) else (pixels, 1)
    return channels * pixels, *inner


def product_block(dtype: torch.dtype) -> int:
    """Channels per step of the fused 1x1 convolution: a cache line (128 bytes) of each pixel."""
    return 128 // dtype.itemsize
