"""Triton kernels over the weight: centring and gain (folding), and their backward.

One program handles one filter of ``filter_size`` values. It walks over the filter in tiles of
BLOCK_C channels by all taps; ``c`` and ``t`` are the indices of the channels and taps of a tile.
The strides (filter, channel, tap) in elements cover contiguous and channels_last weights.
Arithmetic is float32. See triton_kernels.py for the other conventions.

The fused 1x1 convolution needs the sums over each block of channels. For it, the weight [O, C] is
addressed as ``channels`` = block size, ``taps`` = number of blocks. The last block may be short, so
the mask also compares with ``filter_size``.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _filter_mask(c, t, channels, taps, filter_size):
    """The mask of existing entries [c, t] of a filter."""
    mask = (c < channels)[:, None] & (t < taps)[None, :]
    return mask & (c[:, None] + t[None, :] * channels < filter_size)


@triton.jit(do_not_specialize=['channels', 'taps', 'filter_size'])
def fold_kernel(
    weight_ptr, gain_ptr, folded_ptr, channel_sums_ptr, channels, taps, filter_size,
    weight_filter_stride, weight_channel_stride, weight_tap_stride,
    folded_filter_stride, folded_channel_stride, folded_tap_stride,
    HAS_GAIN: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """folded = gain * (weight - mean of the filter), and its sums over the channels [O, taps].

    The sums are taken before ``folded`` is rounded to its dtype.
    """
    o = tl.program_id(0).to(tl.int64)
    t = tl.arange(0, BLOCK_T)
    total = tl.zeros([BLOCK_C, BLOCK_T], tl.float32)
    for c_start in range(0, channels, BLOCK_C):
        c = c_start + tl.arange(0, BLOCK_C)
        at = c[:, None] * weight_channel_stride + t[None, :] * weight_tap_stride
        mask = _filter_mask(c, t, channels, taps, filter_size)
        weight = tl.load(weight_ptr + o * weight_filter_stride + at, mask, other=0.0)
        total += weight.to(tl.float32)
    mean = tl.sum(total) / filter_size
    gain = 1.0
    if HAS_GAIN:
        gain = tl.load(gain_ptr + o).to(tl.float32)
    sums = tl.zeros([BLOCK_C, BLOCK_T], tl.float32)
    for c_start in range(0, channels, BLOCK_C):
        c = c_start + tl.arange(0, BLOCK_C)
        at = c[:, None] * weight_channel_stride + t[None, :] * weight_tap_stride
        mask = _filter_mask(c, t, channels, taps, filter_size)
        weight = tl.load(weight_ptr + o * weight_filter_stride + at, mask, other=0.0)
        folded = tl.where(mask, (weight.to(tl.float32) - mean) * gain, 0.0)
        sums += folded
        at = c[:, None] * folded_channel_stride + t[None, :] * folded_tap_stride
        folded = folded.to(folded_ptr.dtype.element_ty)
        tl.store(folded_ptr + o * folded_filter_stride + at, folded, mask)
    tl.store(channel_sums_ptr + o * taps + t, tl.sum(sums, 0), t < taps)


@triton.jit(do_not_specialize=['channels', 'taps', 'filter_size'])
def fold_backward_kernel(
    grad_folded_ptr, grad_channel_sums_ptr, weight_ptr, gain_ptr, grad_weight_ptr, grad_gain_ptr,
    grad_scale_ptr, channels, taps, filter_size,
    folded_filter_stride, folded_channel_stride, folded_tap_stride,
    weight_filter_stride, weight_channel_stride, weight_tap_stride,
    SCALE: tl.constexpr, HAS_SCALE: tl.constexpr,
    HAS_GAIN: tl.constexpr, HAS_SUMS: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Gradients of weight and gain from those of the folded weight and of its channel sums.

    The former is first divided by SCALE * ``grad_scale``. A row of ``grad_channel_sums`` holds
    taps + 1 values, of which the last is not used here.
    ``grad_weight`` has the strides of the weight. The gradient of the gain is a product with the
    centred weight, not sum(grad * y) / gain, because a gain may be zero.
    """
    o = tl.program_id(0).to(tl.int64)
    t = tl.arange(0, BLOCK_T)
    grad_sums = tl.zeros([BLOCK_T], tl.float32)
    if HAS_SUMS:
        grad_sums = tl.load(grad_channel_sums_ptr + o * (taps + 1) + t, t < taps, other=0.0)
    unscale = 1.0
    if HAS_SCALE:
        unscale = 1.0 / (tl.load(grad_scale_ptr) * SCALE)
    grad_total = tl.zeros([BLOCK_C, BLOCK_T], tl.float32)
    weight_total = tl.zeros([BLOCK_C, BLOCK_T], tl.float32)
    for c_start in range(0, channels, BLOCK_C):
        c = c_start + tl.arange(0, BLOCK_C)
        mask = _filter_mask(c, t, channels, taps, filter_size)
        at = c[:, None] * folded_channel_stride + t[None, :] * folded_tap_stride
        grad = tl.load(grad_folded_ptr + o * folded_filter_stride + at, mask, other=0.0)
        grad = grad.to(tl.float32) * unscale + grad_sums[None, :]
        grad_total += tl.where(mask, grad, 0.0)
        at = c[:, None] * weight_channel_stride + t[None, :] * weight_tap_stride
        weight = tl.load(weight_ptr + o * weight_filter_stride + at, mask, other=0.0)
        weight_total += weight.to(tl.float32)
    grad_mean, weight_mean = tl.sum(grad_total) / filter_size, tl.sum(weight_total) / filter_size
    gain = 1.0
    if HAS_GAIN:
        gain = tl.load(gain_ptr + o).to(tl.float32)
    products = tl.zeros([BLOCK_C, BLOCK_T], tl.float32)
    for c_start in range(0, channels, BLOCK_C):
        c = c_start + tl.arange(0, BLOCK_C)
        mask = _filter_mask(c, t, channels, taps, filter_size)
        at = c[:, None] * folded_channel_stride + t[None, :] * folded_tap_stride
        grad = tl.load(grad_folded_ptr + o * folded_filter_stride + at, mask, other=0.0)
        grad = grad.to(tl.float32) * unscale + grad_sums[None, :]
        grad = tl.where(mask, grad - grad_mean, 0.0)
        at = c[:, None] * weight_channel_stride + t[None, :] * weight_tap_stride
        if HAS_GAIN:
            weight = tl.load(weight_ptr + o * weight_filter_stride + at, mask, other=0.0)
            products += grad * tl.where(mask, weight.to(tl.float32) - weight_mean, 0.0)
        grad_weight = (grad * gain).to(grad_weight_ptr.dtype.element_ty)
        tl.store(grad_weight_ptr + o * weight_filter_stride + at, grad_weight, mask)
    if HAS_GAIN:
        tl.store(grad_gain_ptr + o, tl.sum(products).to(grad_gain_ptr.dtype.element_ty))
