"""The passes of the Triton backend, device side. triton_passes.py launches them and picks sizes.

A tile is [pixels, channels]: BLOCK_P pixels of one image (``p``) by BLOCK_C input or BLOCK_O output
channels of one group. A tensor is addressed by three strides in elements, (image, channel, pixel),
so channels_last (pixel = C, channel = 1) and contiguous (pixel = 1, channel = H*W) are one code.
Image and pixel offsets are int64, since a batch may hold more than 2**31 values; the offset of a
channel stays inside one sample and is int32. Single-channel maps are [N, G, H*W] in float32.

Bounds of loops are constants, even where they are sizes: few in a model, and one kernel each. Every
load and store is masked to what exists; nothing is accumulated with atomics, so that results are
the same in every run. Arithmetic is float32 whatever the tensors hold, products of the fused
convolution excepted, whose operands are in the compute dtype as those of any convolution.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _tile(start, pixel, channel, pixels, channels, pixel_stride, channel_stride):
    """Offsets of the tile [pixel, channel] from ``start`` on, and which of them exist."""
    at = pixel.to(tl.int64)[:, None] * pixel_stride + channel[None, :] * channel_stride
    return start + at, (pixel < pixels)[:, None] & (channel < channels)[None, :]


@triton.jit
def pixel_statistics_kernel(
    x, deviation, level, spread,
    pixels, tiles, image_stride, channel_stride, pixel_stride,
    channels: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Mean (``level``) and variance (``spread``) of each pixel over a group's channels; x - mean.

    Channels of one block stay in registers; of more, x is read again, out of L1 or L2. deviation
    has the strides of x.
    """
    image, group = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(1)
    p = tl.program_id(0) % tiles * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.arange(0, BLOCK_C)
    start = image * image_stride + group.to(tl.int64) * channels * channel_stride
    at, exists = _tile(start, p, c, pixels, channels, pixel_stride, channel_stride)
    first = tl.load(x + at, exists, other=0.0).to(tl.float32)
    total = tl.sum(first, 1)
    for done in range(BLOCK_C, channels, BLOCK_C):
        more, mask = _tile(start, p, done + c, pixels, channels, pixel_stride, channel_stride)
        total += tl.sum(tl.load(x + more, mask, other=0.0).to(tl.float32), 1)
    mean = total / channels

    rest = tl.where(exists, first - mean[:, None], 0.0)
    squares = tl.sum(rest * rest, 1)
    tl.store(deviation + at, rest.to(deviation.dtype.element_ty), exists)
    for done in range(BLOCK_C, channels, BLOCK_C):
        more, mask = _tile(start, p, done + c, pixels, channels, pixel_stride, channel_stride)
        rest = tl.load(x + more, mask, other=0.0).to(tl.float32)
        rest = tl.where(mask, rest - mean[:, None], 0.0)
        squares += tl.sum(rest * rest, 1)
        tl.store(deviation + more, rest.to(deviation.dtype.element_ty), mask)
    map_at = (image * tl.num_programs(1) + group) * pixels + p
    tl.store(level + map_at, mean, p < pixels)
    tl.store(spread + map_at, squares / channels, p < pixels)


# WINDOW is the geometry as constants: (kernel, stride, left padding, dilation), each (h, w).


@triton.jit
def _seen_by(p, pixels, height, width, out_width, WINDOW: tl.constexpr, BLOCK_T: tl.constexpr):
    """Input pixels that output positions ``p`` see, [p, tap], and which of these exist."""
    t = tl.arange(0, BLOCK_T)
    row = p // out_width * WINDOW[2] - WINDOW[4]
    row = row[:, None] + (t // WINDOW[1] * WINDOW[6])[None, :]
    column = p % out_width * WINDOW[3] - WINDOW[5]
    column = column[:, None] + (t % WINDOW[1] * WINDOW[7])[None, :]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    inside = inside & (p < pixels)[:, None] & (t < WINDOW[0] * WINDOW[1])[None, :]
    return row * width + column, inside


@triton.jit
def _seeing(p, pixels, width, out_height, out_width, WINDOW: tl.constexpr, BLOCK_T: tl.constexpr):
    """Output positions that see the input pixels ``p``, [p, tap], and which of these exist."""
    t = tl.arange(0, BLOCK_T)
    row = (p // width + WINDOW[4])[:, None] - (t // WINDOW[1] * WINDOW[6])[None, :]
    column = (p % width + WINDOW[5])[:, None] - (t % WINDOW[1] * WINDOW[7])[None, :]
    seen = (row >= 0) & (column >= 0) & (row % WINDOW[2] == 0) & (column % WINDOW[3] == 0)
    row, column = row // WINDOW[2], column // WINDOW[3]
    seen = seen & (row < out_height) & (column < out_width)
    seen = seen & (p < pixels)[:, None] & (t < WINDOW[0] * WINDOW[1])[None, :]
    return row * out_width + column, seen


@triton.jit
def epilogue_kernel(
    y, out, bias, sums, level, spread, mean, rstd,
    outputs, blocks, height, width, out_width, pixels, tiles,
    image_stride, channel_stride, pixel_stride, eps,
    WINDOW: tl.constexpr, HAS_BIAS: tl.constexpr, KEEP: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """out = (y + sums . (level - mean)) * rstd + bias; mean and rstd of each patch on the way.

    The maps are gathered anew by each block of output channels: 2 * K values a pixel, out of
    cache, beside BLOCK_O values of y. KEEP: store what out is before its bias back into y.
    """
    image, group = tl.program_id(0) // tiles, tl.program_id(1) // blocks
    block = tl.program_id(1) % blocks
    groups = tl.num_programs(1) // blocks
    p = tl.program_id(0) % tiles * BLOCK_P + tl.arange(0, BLOCK_P)
    t = tl.arange(0, BLOCK_T)
    taps: tl.constexpr = WINDOW[0] * WINDOW[1]
    at, seen = _seen_by(p, pixels, height, width, out_width, WINDOW, BLOCK_T)
    map_start = (image.to(tl.int64) * groups + group) * height * width
    levels = tl.load(level + map_start + at, seen, other=0.0)  # a padding pixel counts, as 0
    spreads = tl.load(spread + map_start + at, seen, other=0.0)
    center = tl.sum(levels, 1) / taps
    distance = tl.where((t < taps)[None, :], levels - center[:, None], 0.0)
    var = tl.sum(distance * distance + spreads, 1) / taps
    scale = tl.rsqrt(var + eps)
    map_at = (image.to(tl.int64) * groups + group) * pixels + p
    tl.store(mean + map_at, center, (p < pixels) & (block == 0))
    tl.store(rstd + map_at, scale, (p < pixels) & (block == 0))

    o = block * BLOCK_O + tl.arange(0, BLOCK_O)
    start = image.to(tl.int64) * image_stride + group.to(tl.int64) * outputs * channel_stride
    at, mask = _tile(start, p, o, pixels, outputs, pixel_stride, channel_stride)
    value = tl.load(y + at, mask, other=0.0).to(tl.float32)
    if taps > 1:  # for a 1x1 kernel the sums are zero
        weights = tl.load(
            sums + (group * outputs + o)[None, :] * taps + t[:, None],
            (t < taps)[:, None] & (o < outputs)[None, :], other=0.0,
        )  # fmt: skip
        value = tl.dot(distance, weights, value, input_precision='ieee')
    value *= scale[:, None]
    if KEEP:
        tl.store(y + at, value.to(y.dtype.element_ty), mask)
    if HAS_BIAS:
        shift = tl.load(bias + group * outputs + o, o < outputs, other=0.0).to(tl.float32)
        value += shift[None, :]
    tl.store(out + at, value.to(out.dtype.element_ty), mask)


@triton.jit
def scale_backward_kernel(
    grad, y, grad_z, slopes, partial, level, mean, rstd,
    outputs, blocks, height, width, out_width, pixels, tiles, items,
    image_stride, channel_stride, pixel_stride, slope_stride, values,
    WINDOW: tl.constexpr, STRIP: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """The one pass over the output's gradient g and y, which share their strides.

    Stores grad_z = g * rstd; slopes [blocks, N, G, pixels], whose sum over the blocks of output
    channels is -rstd^2 * sum_o(g * y) / values; and partial [splits, O, K + 1], whose sum over
    the splits is the gradient of the kernel's sums and, last, that of the bias. A program takes
    STRIP of the ``items`` tiles of pixels there are in all images, so that partial sums stay few.
    """
    split = tl.program_id(0)
    group, block = tl.program_id(1) // blocks, tl.program_id(1) % blocks
    groups = tl.num_programs(1) // blocks
    o = block * BLOCK_O + tl.arange(0, BLOCK_O)
    t = tl.arange(0, BLOCK_T)
    taps: tl.constexpr = WINDOW[0] * WINDOW[1]
    grad_bias = tl.zeros([BLOCK_O], tl.float32)
    grad_sums = tl.zeros([BLOCK_T, BLOCK_O], tl.float32)
    for step in range(0, STRIP):
        item = split * STRIP + step
        image = (item // tiles).to(tl.int64)
        p = item % tiles * BLOCK_P + tl.arange(0, BLOCK_P)
        here = tl.where(item < items, pixels, 0)  # past the last tile nothing exists
        start = image * image_stride + group.to(tl.int64) * outputs * channel_stride
        at, mask = _tile(start, p, o, here, outputs, pixel_stride, channel_stride)
        g = tl.load(grad + at, mask, other=0.0).to(tl.float32)
        value = tl.load(y + at, mask, other=0.0).to(tl.float32)
        map_at = (image * groups + group) * pixels + p
        scale = tl.load(rstd + map_at, p < here, other=0.0)
        slope = tl.sum(g * value, 1) * scale * scale / -values
        tl.store(slopes + block.to(tl.int64) * slope_stride + map_at, slope, p < here)
        grad_bias += tl.sum(g, 0)
        g *= scale[:, None]
        tl.store(grad_z + at, g.to(grad_z.dtype.element_ty), mask)
        if taps > 1:
            at, seen = _seen_by(p, here, height, width, out_width, WINDOW, BLOCK_T)
            map_start = (image * groups + group) * height * width
            center = tl.load(mean + map_at, p < here, other=0.0)
            levels = tl.load(level + map_start + at, seen, other=0.0)
            distance = tl.where((t < taps)[None, :], levels - center[:, None], 0.0)
            grad_sums = tl.dot(tl.trans(distance), g, grad_sums, input_precision='ieee')
    row = partial + (split.to(tl.int64) * groups * outputs + group * outputs + o) * (taps + 1)
    tl.store(row + taps, grad_bias, o < outputs)
    if taps > 1:
        mask = (t < taps)[:, None] & (o < outputs)[None, :]
        tl.store(row[None, :] + t[:, None], grad_sums, mask)


@triton.jit
def input_backward_kernel(
    x, grad_conv, grad_x, level, mean, slope,
    channels, blocks, width, out_height, out_width, pixels, tiles,
    image_stride, channel_stride, pixel_stride,
    WINDOW: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """grad_x = grad_conv + the gradient through the statistics of every patch that saw the pixel.

    That is sum_k slope_k * (x - mean_k) over these patches k, here as (x - m) * sum_k slope_k +
    sum_k slope_k * (m - mean_k) with the pixel's mean m: no large numbers cancel.
    """
    image, group = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(1) // blocks
    groups = tl.num_programs(1) // blocks
    p = tl.program_id(0) % tiles * BLOCK_P + tl.arange(0, BLOCK_P)
    at, seen = _seeing(p, pixels, width, out_height, out_width, WINDOW, BLOCK_T)
    map_at = (image * groups + group) * out_height * out_width + at
    slopes = tl.load(slope + map_at, seen, other=0.0)
    means = tl.load(mean + map_at, seen, other=0.0)
    m = tl.load(level + (image * groups + group) * pixels + p, p < pixels, other=0.0)
    offset = tl.sum(slopes * (m[:, None] - means), 1)
    factor = tl.sum(slopes, 1)

    c = tl.program_id(1) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    start = image * image_stride + group.to(tl.int64) * channels * channel_stride
    at, mask = _tile(start, p, c, pixels, channels, pixel_stride, channel_stride)
    value = tl.load(x + at, mask, other=0.0).to(tl.float32)
    grad = tl.load(grad_conv + at, mask, other=0.0).to(tl.float32)
    grad += (value - m[:, None]) * factor[:, None] + offset[:, None]
    tl.store(grad_x + at, grad.to(grad_x.dtype.element_ty), mask)


@triton.jit
def pointwise_kernel(
    x, kernel, sums, bias, y, out, mean, rstd,
    outputs, blocks, width, out_width, pixels, tiles,
    x_image, x_channel, x_pixel, y_image, y_channel, y_pixel, eps,
    channels: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr, HAS_BIAS: tl.constexpr, KEEP: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """A whole 1x1 normalized convolution: x [pixels, C] times kernel [C, O], one read of x.

    Each block b of channels is multiplied as x - mu_b, with its own mean mu_b, and contributes
    mu_b * sums[o, b] besides, sums being those of the centred kernel over the block. All sums of a
    filter add up to zero, so that mu_b - mu_0 does as well: neither product carries the pixel's
    mean. The variance merges block by block (Chan, Golub, LeVeque 1979), which cancels nothing.
    """
    block, rest = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    image = (rest // tiles).to(tl.int64)
    p = rest % tiles * BLOCK_P + tl.arange(0, BLOCK_P)
    source = p
    if STRIDE_H > 1 or STRIDE_W > 1:
        source = p // out_width * STRIDE_H * width + p % out_width * STRIDE_W
    rows = x + image * x_image + source.to(tl.int64) * x_pixel
    o = block * BLOCK_O + tl.arange(0, BLOCK_O)
    total = tl.zeros([BLOCK_P, BLOCK_O], tl.float32)
    center = tl.zeros([BLOCK_P], tl.float32)
    squares = tl.zeros([BLOCK_P], tl.float32)
    shift = tl.zeros([BLOCK_P], tl.float32)
    for b in range(0, tl.cdiv(channels, BLOCK_C)):
        done = b * BLOCK_C
        c = done + tl.arange(0, BLOCK_C)
        mask = (p < pixels)[:, None] & (c < channels)[None, :]
        value = tl.load(rows[:, None] + c[None, :] * x_channel, mask, other=0.0).to(tl.float32)
        weights = tl.load(
            kernel + o[None, :].to(tl.int64) * channels + c[:, None],
            (c < channels)[:, None] & (o < outputs)[None, :], other=0.0,
        )  # fmt: skip
        weight_sums = tl.load(sums + o * tl.cdiv(channels, BLOCK_C) + b, o < outputs, other=0.0)
        count = tl.minimum(channels - done, BLOCK_C)
        block_mean = tl.sum(value, 1) / count
        value = tl.where(mask, value - block_mean[:, None], 0.0)
        rounded = value.to(kernel.dtype.element_ty)
        if WIDEN:  # Triton's interpreter would multiply the bits of bfloat16 as if integers
            rounded, weights = rounded.to(tl.float32), weights.to(tl.float32)
        total = tl.dot(rounded, weights, total, input_precision=PRECISION)
        shift = tl.where(b == 0, block_mean, shift)
        total += (block_mean - shift)[:, None] * weight_sums[None, :]
        share = count / (done + count)
        delta = block_mean - center
        center += delta * share
        squares += tl.sum(value * value, 1) + delta * delta * (done * share)
    scale = tl.rsqrt(squares / channels + eps)
    map_at = image * pixels + p
    tl.store(mean + map_at, center, (p < pixels) & (block == 0))
    tl.store(rstd + map_at, scale, (p < pixels) & (block == 0))

    total *= scale[:, None]
    at, mask = _tile(image * y_image, p, o, pixels, outputs, y_pixel, y_channel)
    if KEEP:
        tl.store(y + at, total.to(y.dtype.element_ty), mask)
    if HAS_BIAS:
        total += tl.load(bias + o, o < outputs, other=0.0).to(tl.float32)[None, :]
    tl.store(out + at, total.to(out.dtype.element_ty), mask)
