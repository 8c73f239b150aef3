"""Triton kernels over activations: statistics, epilogue, and their backward.

triton_launch.py allocates the tensors, chooses the block sizes and launches the kernels.

A program works on tiles of BLOCK_P pixels by BLOCK_C input channels (or BLOCK_O output channels) of
one image and one group. ``p``, ``c``, ``o`` and ``t`` are the indices of the pixels, the input
channels, the output channels and the taps of a tile. An output position is a pixel of the output,
and K is the number of taps.

- Activations have three strides in elements: image, channel and pixel. So one kernel serves
  contiguous and channels_last tensors.
- Single-channel maps (means, variances, rstd) are float32 [N, G, H*W].
- Offsets of images and pixels are int64, because a batch may hold more than 2**31 values. Offsets
  of channels are int32, because one sample holds fewer.
- All arithmetic is float32, except the product of triton_pointwise_kernel.py.
- SCALE is :func:`~.precision.input_scale`. ``grad_scale`` is :func:`~.precision.gradient_scale`, a
  scalar tensor that is read only with HAS_SCALE.
- There are no atomics, so results are the same in every run.
- Loop bounds are runtime arguments, so other numbers of channels and pixels do not compile again.
  Arguments whose divisibility by 16 does not speed up memory access are not specialized, for the
  same reason.
"""

from __future__ import annotations

import triton
import triton.language as tl

_STEPS = ('top', 'left', 'row_dilation', 'column_dilation')


@triton.jit
def _tile(start, p, c, pixels, channels, pixel_stride, channel_stride):
    """Offsets of the tile [p, c] of an activation, and the mask of existing entries.

    ``start`` is the offset of the first channel of the group.
    """
    offsets = p.to(tl.int64)[:, None] * pixel_stride + c[None, :] * channel_stride
    return start + offsets, (p < pixels)[:, None] & (c < channels)[None, :]


@triton.jit(do_not_specialize=['tiles'])
def pixel_statistics_kernel(
    x_ptr, centered_ptr, pixel_mean_ptr, pixel_var_ptr,
    channels, pixels, tiles, image_stride, channel_stride, pixel_stride,
    SCALE: tl.constexpr, ONE_BLOCK: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Mean and variance of each pixel over the channels of a group; centered = (x - mean) * SCALE.

    The first BLOCK_C channels stay in registers, and are all there are with ONE_BLOCK. Further
    channels are read twice, the second time from the cache. ``centered`` has the strides of x.
    """
    image, group = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(1)
    p = tl.program_id(0) % tiles * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.arange(0, BLOCK_C)
    start = image * image_stride + group.to(tl.int64) * channels * channel_stride
    first_at, first_mask = _tile(start, p, c, pixels, channels, pixel_stride, channel_stride)
    first = tl.load(x_ptr + first_at, first_mask, other=0.0).to(tl.float32)
    total = tl.sum(first, 1)
    end = BLOCK_C if ONE_BLOCK else channels
    for c_start in range(BLOCK_C, end, BLOCK_C):
        at, mask = _tile(start, p, c_start + c, pixels, channels, pixel_stride, channel_stride)
        total += tl.sum(tl.load(x_ptr + at, mask, other=0.0).to(tl.float32), 1)
    mean = total / channels

    centered = tl.where(first_mask, first - mean[:, None], 0.0)
    squares = tl.sum(centered * centered, 1)
    centered *= SCALE
    tl.store(centered_ptr + first_at, centered.to(centered_ptr.dtype.element_ty), first_mask)
    for c_start in range(BLOCK_C, end, BLOCK_C):
        at, mask = _tile(start, p, c_start + c, pixels, channels, pixel_stride, channel_stride)
        x = tl.load(x_ptr + at, mask, other=0.0).to(tl.float32)
        centered = tl.where(mask, x - mean[:, None], 0.0)
        squares += tl.sum(centered * centered, 1)
        centered *= SCALE
        tl.store(centered_ptr + at, centered.to(centered_ptr.dtype.element_ty), mask)
    map_at = (image * tl.num_programs(1) + group) * pixels + p
    tl.store(pixel_mean_ptr + map_at, mean, p < pixels)
    tl.store(pixel_var_ptr + map_at, squares / channels, p < pixels)


# KERNEL_SIZE and STRIDE are constexpr tuples (height, width). ``top`` and ``left`` are the padding.


@triton.jit
def _patch_pixels(
    p, positions, height, width, out_width, top, left, row_dilation, column_dilation,
    KERNEL_SIZE: tl.constexpr, STRIDE: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Input pixels of the patches at the output positions ``p``: offsets [p, t] and mask.

    The mask is False for padding.
    """
    t = tl.arange(0, BLOCK_T)
    row = p // out_width * STRIDE[0] - top
    row = row[:, None] + (t // KERNEL_SIZE[1] * row_dilation)[None, :]
    column = p % out_width * STRIDE[1] - left
    column = column[:, None] + (t % KERNEL_SIZE[1] * column_dilation)[None, :]
    mask = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    mask = mask & (p < positions)[:, None] & (t < KERNEL_SIZE[0] * KERNEL_SIZE[1])[None, :]
    return row * width + column, mask


@triton.jit
def _covering_patches(
    p, pixels, width, out_height, out_width, top, left, row_dilation, column_dilation,
    KERNEL_SIZE: tl.constexpr, STRIDE: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Output positions whose patch contains the input pixels ``p``: offsets [p, t] and mask.

    Tap t of the patch at position [p, t] is the pixel p.
    """
    t = tl.arange(0, BLOCK_T)
    row = (p // width + top)[:, None] - (t // KERNEL_SIZE[1] * row_dilation)[None, :]
    column = (p % width + left)[:, None] - (t % KERNEL_SIZE[1] * column_dilation)[None, :]
    mask = (row >= 0) & (column >= 0) & (row % STRIDE[0] == 0) & (column % STRIDE[1] == 0)
    row, column = row // STRIDE[0], column // STRIDE[1]
    mask = mask & (row < out_height) & (column < out_width)
    mask = mask & (p < pixels)[:, None] & (t < KERNEL_SIZE[0] * KERNEL_SIZE[1])[None, :]
    return row * out_width + column, mask


@triton.jit(do_not_specialize=[*_STEPS, 'blocks', 'height', 'width', 'out_width', 'tiles'])
def epilogue_kernel(
    y_ptr, out_ptr, bias_ptr, channel_sums_ptr, pixel_mean_ptr, pixel_var_ptr, mean_ptr, rstd_ptr,
    outputs, blocks, height, width, out_width, positions, tiles,
    image_stride, channel_stride, pixel_stride, eps, top, left, row_dilation, column_dilation,
    KERNEL_SIZE: tl.constexpr, STRIDE: tl.constexpr, SCALE: tl.constexpr, HAS_BIAS: tl.constexpr,
    STORE_Y: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """out = (y / SCALE + mean_offsets @ channel_sums) * rstd + bias, y = conv(centered, folded).

    Also computes the mean and the rstd of each patch. Every block of output channels gathers the
    single-channel maps again: 2 * K values per position, from the cache, beside BLOCK_O values of
    y. With STORE_Y the output before the bias replaces y.
    """
    image, group = tl.program_id(0) // tiles, tl.program_id(1) // blocks
    block = tl.program_id(1) % blocks
    groups = tl.num_programs(1) // blocks
    p = tl.program_id(0) % tiles * BLOCK_P + tl.arange(0, BLOCK_P)
    t = tl.arange(0, BLOCK_T)
    taps: tl.constexpr = KERNEL_SIZE[0] * KERNEL_SIZE[1]
    at, mask = _patch_pixels(
        p, positions, height, width, out_width, top, left, row_dilation, column_dilation,
        KERNEL_SIZE, STRIDE, BLOCK_T,
    )  # fmt: skip
    map_start = (image.to(tl.int64) * groups + group) * height * width
    # A padding pixel counts: its mean and its variance are 0.
    pixel_mean = tl.load(pixel_mean_ptr + map_start + at, mask, other=0.0)
    pixel_var = tl.load(pixel_var_ptr + map_start + at, mask, other=0.0)
    mean = tl.sum(pixel_mean, 1) / taps
    mean_offsets = tl.where((t < taps)[None, :], pixel_mean - mean[:, None], 0.0)
    var = tl.sum(mean_offsets * mean_offsets + pixel_var, 1) / taps
    rstd = tl.rsqrt(var + eps)
    map_at = (image.to(tl.int64) * groups + group) * positions + p
    tl.store(mean_ptr + map_at, mean, (p < positions) & (block == 0))
    tl.store(rstd_ptr + map_at, rstd, (p < positions) & (block == 0))

    o = block * BLOCK_O + tl.arange(0, BLOCK_O)
    start = image.to(tl.int64) * image_stride + group.to(tl.int64) * outputs * channel_stride
    at, mask = _tile(start, p, o, positions, outputs, pixel_stride, channel_stride)
    y = tl.load(y_ptr + at, mask, other=0.0).to(tl.float32) * (1.0 / SCALE)
    if taps > 1:  # for a 1x1 kernel the channel sums are zero
        channel_sums = tl.load(
            channel_sums_ptr + (group * outputs + o)[None, :] * taps + t[:, None],
            (t < taps)[:, None] & (o < outputs)[None, :], other=0.0,
        )  # fmt: skip
        y = tl.dot(mean_offsets, channel_sums, y, input_precision='ieee')
    y *= rstd[:, None]
    if STORE_Y:
        tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask)
    if HAS_BIAS:
        bias = tl.load(bias_ptr + group * outputs + o, o < outputs, other=0.0).to(tl.float32)
        y += bias[None, :]
    tl.store(out_ptr + at, y.to(out_ptr.dtype.element_ty), mask)


@triton.jit(
    do_not_specialize=[
        *_STEPS, 'blocks', 'height', 'width', 'out_width', 'tiles', 'all_tiles',
        'tiles_per_program', 'map_size', 'patch_size',
    ]
)  # fmt: skip
def epilogue_backward_kernel(
    grad_ptr, y_ptr, grad_z_ptr, grad_var_ptr, partial_ptr, pixel_mean_ptr, mean_ptr, rstd_ptr,
    grad_scale_ptr,
    outputs, blocks, height, width, out_width, positions, tiles, all_tiles, tiles_per_program,
    image_stride, channel_stride, pixel_stride, map_size, patch_size,
    top, left, row_dilation, column_dilation,
    KERNEL_SIZE: tl.constexpr, STRIDE: tl.constexpr, HAS_SCALE: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Reads the gradient of the output and y, which is the output before its bias, once.

    grad_z [N, O, L]: the gradient times rstd. This is the gradient of the convolution's output. It
        is multiplied by ``grad_scale``.
    grad_var [blocks, N, G, L]: its sum over the blocks of output channels is
        -rstd**2 * sum_o(grad * y) / patch_size, the gradient of the variance times 2 / patch_size.
    partial [splits, O, K + 1]: its sum over the splits holds the gradients of the K channel sums
        and of the bias. A 1x1 kernel leaves the first K columns unwritten.

    The images have ``all_tiles`` tiles of output positions in total. A program loops over
    ``tiles_per_program`` of them, so that few partial sums remain.
    """
    split = tl.program_id(0)
    group, block = tl.program_id(1) // blocks, tl.program_id(1) % blocks
    groups = tl.num_programs(1) // blocks
    o = block * BLOCK_O + tl.arange(0, BLOCK_O)
    t = tl.arange(0, BLOCK_T)
    taps: tl.constexpr = KERNEL_SIZE[0] * KERNEL_SIZE[1]
    grad_scale = 1.0
    if HAS_SCALE:
        grad_scale = tl.load(grad_scale_ptr)
    grad_bias = tl.zeros([BLOCK_O], tl.float32)
    grad_channel_sums = tl.zeros([BLOCK_T, BLOCK_O], tl.float32)
    for step in range(0, tiles_per_program):
        tile = split * tiles_per_program + step
        image = (tile // tiles).to(tl.int64)
        p = tile % tiles * BLOCK_P + tl.arange(0, BLOCK_P)
        end = tl.where(tile < all_tiles, positions, 0)  # masks everything past the last tile
        start = image * image_stride + group.to(tl.int64) * outputs * channel_stride
        at, mask = _tile(start, p, o, end, outputs, pixel_stride, channel_stride)
        grad = tl.load(grad_ptr + at, mask, other=0.0).to(tl.float32)
        y = tl.load(y_ptr + at, mask, other=0.0).to(tl.float32)
        map_at = (image * groups + group) * positions + p
        rstd = tl.load(rstd_ptr + map_at, p < end, other=0.0)
        grad_var = tl.sum(grad * y, 1) * rstd * rstd / -patch_size
        tl.store(grad_var_ptr + block.to(tl.int64) * map_size + map_at, grad_var, p < end)
        grad_bias += tl.sum(grad, 0)
        grad_z = grad * rstd[:, None]
        tl.store(grad_z_ptr + at, (grad_z * grad_scale).to(grad_z_ptr.dtype.element_ty), mask)
        if taps > 1:
            at, mask = _patch_pixels(
                p, end, height, width, out_width, top, left, row_dilation, column_dilation,
                KERNEL_SIZE, STRIDE, BLOCK_T,
            )  # fmt: skip
            map_start = (image * groups + group) * height * width
            pixel_mean = tl.load(pixel_mean_ptr + map_start + at, mask, other=0.0)
            mean = tl.load(mean_ptr + map_at, p < end, other=0.0)
            mean_offsets = tl.where((t < taps)[None, :], pixel_mean - mean[:, None], 0.0)
            grad_channel_sums = tl.dot(
                tl.trans(mean_offsets), grad_z, grad_channel_sums, input_precision='ieee'
            )
    row = partial_ptr + (split.to(tl.int64) * groups * outputs + group * outputs + o) * (taps + 1)
    tl.store(row + taps, grad_bias, o < outputs)
    if taps > 1:
        mask = (t < taps)[:, None] & (o < outputs)[None, :]
        tl.store(row[None, :] + t[:, None], grad_channel_sums, mask)


@triton.jit(do_not_specialize=[*_STEPS, 'blocks', 'width', 'out_height', 'out_width', 'tiles'])
def statistics_backward_kernel(
    x_ptr, grad_centered_ptr, grad_x_ptr, pixel_mean_ptr, mean_ptr, grad_var_ptr, grad_scale_ptr,
    channels, blocks, width, out_height, out_width, pixels, tiles,
    image_stride, channel_stride, pixel_stride, top, left, row_dilation, column_dilation,
    KERNEL_SIZE: tl.constexpr, STRIDE: tl.constexpr, HAS_SCALE: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Add the gradient through the variances to the input gradient of the convolution.

    The latter is first divided by ``grad_scale``.

    A pixel x receives grad_var_k * (x - mean_k) from every patch k that contains it. With the mean
    m of the pixel, the sum over k is computed as

        (x - m) * sum_k grad_var_k + sum_k grad_var_k * (m - mean_k)

    so that no two large numbers cancel. ``grad_x`` may be the same tensor as ``grad_centered``.
    """
    image, group = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(1) // blocks
    groups = tl.num_programs(1) // blocks
    p = tl.program_id(0) % tiles * BLOCK_P + tl.arange(0, BLOCK_P)
    at, mask = _covering_patches(
        p, pixels, width, out_height, out_width, top, left, row_dilation, column_dilation,
        KERNEL_SIZE, STRIDE, BLOCK_T,
    )  # fmt: skip
    map_at = (image * groups + group) * out_height * out_width + at
    grad_var = tl.load(grad_var_ptr + map_at, mask, other=0.0)
    mean = tl.load(mean_ptr + map_at, mask, other=0.0)
    pixel_at = (image * groups + group) * pixels + p
    pixel_mean = tl.load(pixel_mean_ptr + pixel_at, p < pixels, other=0.0)
    offset = tl.sum(tl.where(mask, grad_var * (pixel_mean[:, None] - mean), 0.0), 1)
    factor = tl.sum(grad_var, 1)

    c = tl.program_id(1) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    start = image * image_stride + group.to(tl.int64) * channels * channel_stride
    at, mask = _tile(start, p, c, pixels, channels, pixel_stride, channel_stride)
    x = tl.load(x_ptr + at, mask, other=0.0).to(tl.float32)
    grad = tl.load(grad_centered_ptr + at, mask, other=0.0).to(tl.float32)
    if HAS_SCALE:
        grad /= tl.load(grad_scale_ptr)
    # The factor is 0 at a pixel that no patch contains, and such a pixel may be NaN.
    centered = tl.where(factor[:, None] == 0.0, 0.0, x - pixel_mean[:, None])
    grad += centered * factor[:, None] + offset[:, None]
    tl.store(grad_x_ptr + at, grad.to(grad_x_ptr.dtype.element_ty), mask)
