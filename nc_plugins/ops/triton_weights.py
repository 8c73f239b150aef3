"""The passes of the Triton backend over the weight, device side: centre, gain, and their adjoint.

A filter is a tile [channel, tap], BLOCK_T >= all taps, walked in blocks of BLOCK_C channels; one
program a filter. The strides (filter, channel, tap) in elements cover both memory formats. Where a
1x1 kernel is seen as blocks of channels, these blocks are the taps, and the last may be short:
hence ``values``, all there is in a filter. Arithmetic is float32; nothing is kept between passes.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _tile(c, t, channels, taps, values):
    """Which entries [c, t] of a filter exist."""
    exists = (c < channels)[:, None] & (t < taps)[None, :]
    return exists & (c[:, None] + t[None, :] * channels < values)


@triton.jit
def kernel_kernel(
    weight, gain, kernel, sums, taps, values,
    w_filter, w_channel, w_tap, k_filter, k_channel, k_tap,
    channels: tl.constexpr, HAS_GAIN: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """kernel[o] = gain[o] * (weight[o] - its mean), and sums [O, taps] of it over the channels.

    The sums are those of the kernel before it is rounded to its dtype.
    """
    o = tl.program_id(0).to(tl.int64)
    t = tl.arange(0, BLOCK_T)
    total = tl.zeros([BLOCK_C, BLOCK_T], tl.float32)
    for done in range(0, channels, BLOCK_C):
        c = done + tl.arange(0, BLOCK_C)
        at = o * w_filter + c[:, None] * w_channel + t[None, :] * w_tap
        mask = _tile(c, t, channels, taps, values)
        total += tl.load(weight + at, mask, other=0.0).to(tl.float32)
    mean = tl.sum(total) / values
    factor = 1.0
    if HAS_GAIN:
        factor = tl.load(gain + o).to(tl.float32)
    total = tl.zeros([BLOCK_C, BLOCK_T], tl.float32)
    for done in range(0, channels, BLOCK_C):
        c = done + tl.arange(0, BLOCK_C)
        at = o * w_filter + c[:, None] * w_channel + t[None, :] * w_tap
        mask = _tile(c, t, channels, taps, values)
        value = tl.load(weight + at, mask, other=0.0).to(tl.float32)
        value = tl.where(mask, (value - mean) * factor, 0.0)
        total += value
        at = o * k_filter + c[:, None] * k_channel + t[None, :] * k_tap
        tl.store(kernel + at, value.to(kernel.dtype.element_ty), mask)
    tl.store(sums + o * taps + t, tl.sum(total, 0), t < taps)


@triton.jit
def kernel_backward_kernel(
    grad_kernel, grad_sums, weight, gain, grad_weight, grad_gain, taps, values,
    k_filter, k_channel, k_tap, w_filter, w_channel, w_tap,
    channels: tl.constexpr, HAS_GAIN: tl.constexpr, HAS_SUMS: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Gradients of weight and gain from those of the kernel and of its sums over the channels.

    grad_weight has the strides of weight. The gain's gradient is a product with the centred weight
    and not sum(grad * y) / gain, since a gain may be zero.
    """
    o = tl.program_id(0).to(tl.int64)
    t = tl.arange(0, BLOCK_T)
    shared = tl.zeros([BLOCK_T], tl.float32)
    if HAS_SUMS:
        shared = tl.load(grad_sums + o * (taps + 1) + t, t < taps, other=0.0)
    grads = tl.zeros([BLOCK_C, BLOCK_T], tl.float32)
    weights = tl.zeros([BLOCK_C, BLOCK_T], tl.float32)
    for done in range(0, channels, BLOCK_C):
        c = done + tl.arange(0, BLOCK_C)
        mask = _tile(c, t, channels, taps, values)
        at = o * k_filter + c[:, None] * k_channel + t[None, :] * k_tap
        grad = tl.load(grad_kernel + at, mask, other=0.0).to(tl.float32)
        grads += tl.where(mask, grad + shared[None, :], 0.0)
        at = o * w_filter + c[:, None] * w_channel + t[None, :] * w_tap
        weights += tl.load(weight + at, mask, other=0.0).to(tl.float32)
    grad_mean, weight_mean = tl.sum(grads) / values, tl.sum(weights) / values
    factor = 1.0
    if HAS_GAIN:
        factor = tl.load(gain + o).to(tl.float32)
    products = tl.zeros([BLOCK_C, BLOCK_T], tl.float32)
    for done in range(0, channels, BLOCK_C):
        c = done + tl.arange(0, BLOCK_C)
        mask = _tile(c, t, channels, taps, values)
        at = o * k_filter + c[:, None] * k_channel + t[None, :] * k_tap
        grad = tl.load(grad_kernel + at, mask, other=0.0).to(tl.float32)
        grad = tl.where(mask, grad + shared[None, :] - grad_mean, 0.0)
        at = o * w_filter + c[:, None] * w_channel + t[None, :] * w_tap
        if HAS_GAIN:
            value = tl.load(weight + at, mask, other=0.0).to(tl.float32)
            products += grad * tl.where(mask, value - weight_mean, 0.0)
        tl.store(grad_weight + at, (grad * factor).to(grad_weight.dtype.element_ty), mask)
    if HAS_GAIN:
        tl.store(grad_gain + o, tl.sum(products).to(grad_gain.dtype.element_ty))
