"""Launches the Triton kernels over the weight. See triton_launch.py for the conventions."""

from __future__ import annotations

import torch
from torch import Tensor

from .precision import input_scale
from .triton_layout import cdiv, dense, next_power_of_2, product_block, strides
from .triton_weight_kernels import fold_backward_kernel, fold_kernel


def fold(
    weight: Tensor, gain: Tensor | None, dtype: torch.dtype, format: torch.memory_format
) -> tuple[Tensor, Tensor]:
    """The folded weight (see :func:`~.backend.fold`) in ``dtype``; its channel sums [O, K]."""
    channels, taps = weight.shape[1], weight.shape[2:].numel()
    folded = torch.empty_like(weight, dtype=dtype, memory_format=format)
    steps = (*strides(weight), *strides(folded))
    return _fold(weight, gain, folded, channels, taps, taps, steps)


def fold_pointwise(
    weight: Tensor, gain: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The folded weight [O, C, 1, 1] for :func:`pointwise`, and its sums over blocks of channels.

    The sums are [O, blocks] in float32.
    """
    channels, block = weight.shape[1], product_block(dtype)
    folded = torch.empty_like(weight, dtype=dtype, memory_format=torch.contiguous_format)
    # The kernel sees [O, block, blocks]: see triton_weight_kernels.py.
    blocks, steps = cdiv(channels, block), (channels, 1, block) * 2
    return _fold(weight, gain, folded, block, blocks, max(blocks, 2048 // block), steps)


def _fold(weight, gain, folded, channels, taps, tile_taps, steps) -> tuple[Tensor, Tensor]:
    outputs, filter_size = weight.shape[0], weight.shape[1:].numel()
    channel_sums = weight.new_empty((outputs, taps), dtype=torch.float32)
    fold_kernel[(outputs,)](
        weight, weight if gain is None else gain, folded, channel_sums, channels, taps, filter_size,
        *steps, HAS_GAIN=gain is not None, **_filter_tile(tile_taps),
    )  # fmt: skip
    return folded, channel_sums


def fold_backward(
    grad_folded: Tensor,
    grad_channel_sums: Tensor,
    weight: Tensor,
    gain: Tensor | None,
    grad_scale: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Gradients of weight and gain (empty without a gain).

    ``grad_channel_sums``, [O, K + 1], and ``grad_scale`` come from :func:`epilogue_backward`.
    """
    grad_weight = torch.empty_like(weight)
    grad_gain = weight.new_empty(0) if gain is None else torch.empty_like(gain)
    outputs, channels = weight.shape[:2]
    taps = weight.shape[2:].numel()
    grad_folded = dense(grad_folded)
    fold_backward_kernel[(outputs,)](
        grad_folded, grad_channel_sums, weight, weight if gain is None else gain, grad_weight,
        grad_gain, weight if grad_scale is None else grad_scale, channels, taps, channels * taps,
        *strides(grad_folded), *strides(weight),
        SCALE=input_scale(grad_folded.dtype), HAS_SCALE=grad_scale is not None,
        HAS_GAIN=gain is not None, HAS_SUMS=taps > 1, **_filter_tile(taps),
    )  # fmt: skip
    return grad_weight, grad_gain


def _filter_tile(taps: int) -> dict[str, int]:
    """A tile of 2048 values of a filter. It is the same for any number of channels."""
    block_t = next_power_of_2(taps)
    return {'BLOCK_C': max(1, 2048 // block_t), 'BLOCK_T': block_t}
