"""The Triton kernel of a whole 1x1 convolution. See triton_kernels.py for the conventions.

The operands of its product have the dtype of the output, as in any convolution.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_kernels import _tile


@triton.jit(do_not_specialize=['blocks', 'width', 'out_width', 'tiles'])
def pointwise_kernel(
    x_ptr, folded_ptr, block_sums_ptr, bias_ptr, y_ptr, out_ptr, mean_ptr, rstd_ptr,
    channels, outputs, blocks, width, out_width, positions, tiles,
    x_image_stride, x_channel_stride, x_pixel_stride,
    y_image_stride, y_channel_stride, y_pixel_stride, eps,
    STRIDE: tl.constexpr, PRECISION: tl.constexpr, WIDEN: tl.constexpr,
    SCALE: tl.constexpr, HAS_BIAS: tl.constexpr, STORE_Y: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """The whole forward pass of a 1x1 convolution without groups or padding: x is read once.

    The loop over blocks of channels computes the product and the statistics together. The mean of
    a pixel is not known before the end of the loop, so block b is centred by its own mean m_b. Its
    product is that of x - m_b, plus (m_b - m_0) * block_sums[o, b], where block_sums holds the sums
    of the folded weight over each block. The term in m_0 vanishes, because the sums of a filter add
    up to zero. So no product carries the mean of the pixel. The variances of the blocks are merged
    by the formula of Chan, Golub and LeVeque (1979), in which no large numbers cancel.

    The sum carries the factor SCALE until the end. ``folded`` is [O, C] in row-major order. With
    STORE_Y, y receives the output before the bias.
    """
    block, index = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    image = (index // tiles).to(tl.int64)
    p = index % tiles * BLOCK_P + tl.arange(0, BLOCK_P)
    pixel = p
    if STRIDE[0] > 1 or STRIDE[1] > 1:
        pixel = p // out_width * STRIDE[0] * width + p % out_width * STRIDE[1]
    rows = x_ptr + image * x_image_stride + pixel.to(tl.int64) * x_pixel_stride
    o = block * BLOCK_O + tl.arange(0, BLOCK_O)
    y = tl.zeros([BLOCK_P, BLOCK_O], tl.float32)
    mean = tl.zeros([BLOCK_P], tl.float32)
    squares = tl.zeros([BLOCK_P], tl.float32)
    first_mean = tl.zeros([BLOCK_P], tl.float32)
    for b in range(0, tl.cdiv(channels, BLOCK_C)):
        c_start = b * BLOCK_C
        c = c_start + tl.arange(0, BLOCK_C)
        mask = (p < positions)[:, None] & (c < channels)[None, :]
        x = tl.load(rows[:, None] + c[None, :] * x_channel_stride, mask, other=0.0).to(tl.float32)
        folded = tl.load(
            folded_ptr + o[None, :].to(tl.int64) * channels + c[:, None],
            (c < channels)[:, None] & (o < outputs)[None, :], other=0.0,
        )  # fmt: skip
        block_sums = tl.load(
            block_sums_ptr + o * tl.cdiv(channels, BLOCK_C) + b, o < outputs, other=0.0
        )
        count = tl.minimum(channels - c_start, BLOCK_C)
        block_mean = tl.sum(x, 1) / count
        centered = tl.where(mask, x - block_mean[:, None], 0.0)
        operand = (centered * SCALE).to(folded_ptr.dtype.element_ty)
        if WIDEN:  # Triton's interpreter multiplies the bits of bfloat16 as integers
            operand, folded = operand.to(tl.float32), folded.to(tl.float32)
        y = tl.dot(operand, folded, y, input_precision=PRECISION)
        first_mean = tl.where(b == 0, block_mean, first_mean)
        y += ((block_mean - first_mean) * SCALE)[:, None] * block_sums[None, :]
        share = count / (c_start + count)
        delta = block_mean - mean
        mean += delta * share
        # In this order, because delta * delta may be infinite, and 0 * infinity is NaN.
        squares += tl.sum(centered * centered, 1) + delta * (delta * (c_start * share))
    rstd = tl.rsqrt(squares / channels + eps)
    map_at = image * positions + p
    tl.store(mean_ptr + map_at, mean, (p < positions) & (block == 0))
    tl.store(rstd_ptr + map_at, rstd, (p < positions) & (block == 0))

    y *= (rstd * (1.0 / SCALE))[:, None]
    at, mask = _tile(
        image * y_image_stride, p, o, positions, outputs, y_pixel_stride, y_channel_stride
    )
    if STORE_Y:
        tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask)
    if HAS_BIAS:
        y += tl.load(bias_ptr + o, o < outputs, other=0.0).to(tl.float32)[None, :]
    tl.store(out_ptr + at, y.to(out_ptr.dtype.element_ty), mask)
