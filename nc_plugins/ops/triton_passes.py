"""The passes of the Triton backend, host side: tensors in, tensors out, block sizes in between.

Block sizes follow from shapes by fixed rules and are never timed, so that a result depends on
shapes alone and the first step compiles each kernel once. No pass synchronises or looks at values.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from triton import cdiv, knobs, next_power_of_2

from . import triton_kernels as kernels
from . import triton_weights as weights
from .geometry import Geometry

INTERPRETED = knobs.runtime.interpret
# Programs that share the output's gradient in the backward pass, two to four for each
# multiprocessor of a large GPU. A constant, since the order of summation depends on it.
_SPLITS = 512


def memory_format(input: Tensor, weight: Tensor) -> torch.memory_format:
    """That of the input; where it is both (one channel, one pixel), the weight's."""
    decides = weight if is_last(input) and input.is_contiguous() else input
    last = is_last(decides) and not decides.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def is_last(x: Tensor) -> bool:
    """Channels last in memory; true as well where both formats are the same."""
    return x.is_contiguous(memory_format=torch.channels_last)


def dense(x: Tensor) -> Tensor:
    """Input or weight in one of the two memory formats that the kernels read."""
    return x if is_last(x) else x.contiguous()


def empty_output(input: Tensor, weight: Tensor, geometry: Geometry, dtype: torch.dtype) -> Tensor:
    shape = (input.shape[0], weight.shape[0], *geometry.output_size(input.shape[2:]))
    format = memory_format(input, weight)
    return torch.empty(shape, dtype=dtype, device=input.device, memory_format=format)


def empty_map(y: Tensor, groups: int) -> Tensor:
    """One number for each position and group of the output: [N, G, H', W'], float32."""
    shape = (y.shape[0], groups, *y.shape[2:])
    return torch.empty(shape, dtype=torch.float32, device=y.device)


def is_pointwise(geometry: Geometry) -> bool:
    """Whether the fused kernel serves it: one pixel a patch, none of them padding."""
    return geometry.taps == 1 and geometry.groups == 1 and not any(map(any, geometry.pads))


def folded_kernel(
    weight: Tensor,
    gain: Tensor | None,
    geometry: Geometry,
    dtype: torch.dtype,
    format: torch.memory_format | None = None,
) -> tuple[Tensor, Tensor]:
    """Kernel and sums as the passes of this geometry take them; format: the weight's by default."""
    if is_pointwise(geometry):
        return kernel(weight, gain, dtype, torch.contiguous_format, _product_block(dtype))
    return kernel(weight, gain, dtype, _format(weight) if format is None else format)


def pixel_statistics(x: Tensor, groups: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """x - m in ``dtype``, and mean m and variance of every pixel, [N, G, H, W] in float32."""
    batch, channels, height, width = x.shape
    deviation = torch.empty_like(x, dtype=dtype)
    level, spread = x.new_empty((2, batch, groups, height, width), dtype=torch.float32)
    images, pixels = batch, height * width
    if groups == 1 and is_last(x):  # the pixels of all images follow each other
        images, pixels = 1, batch * pixels
    channels //= groups
    # 4096 values a program, 32 a thread: wide along what is contiguous in memory.
    widest = 1024 if is_last(x) else 64
    block_c = min(widest, next_power_of_2(channels))
    block_p = min(4096 // block_c, next_power_of_2(pixels))
    tiles = cdiv(pixels, block_p)
    kernels.pixel_statistics_kernel[(images * tiles, groups)](
        x, deviation, level, spread, pixels, tiles, *_strides(x), channels=channels,
        BLOCK_P=block_p, BLOCK_C=block_c,
    )  # fmt: skip
    return deviation, level, spread


def kernel(
    weight: Tensor,
    gain: Tensor | None,
    dtype: torch.dtype,
    format: torch.memory_format,
    block: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The centred kernel with its gain, and its sums over the channels, [O, K] in float32.

    block: for a 1x1 kernel, sum over blocks of so many channels instead, [O, blocks].
    """
    centred = torch.empty_like(weight, dtype=dtype, memory_format=format)
    outputs, channels = weight.shape[:2]
    taps = weight.shape[2:].numel()
    values = channels * taps
    steps = (*_strides(weight), *_strides(centred))
    if block is not None:
        channels, taps = block, cdiv(channels, block)
        steps = (values, 1, block) * 2
    sums = weight.new_empty((outputs, taps), dtype=torch.float32)
    weights.kernel_kernel[(outputs,)](
        weight, weight if gain is None else gain, centred, sums, taps, values, *steps,
        channels=channels, HAS_GAIN=gain is not None, **_filter_blocks(channels, taps),
    )  # fmt: skip
    return centred, sums


def kernel_backward(
    grad_kernel: Tensor, grad_sums: Tensor, weight: Tensor, gain: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Gradients of weight and gain; the rows of grad_sums [O, K + 1] are as scale_backward's."""
    grad_weight = torch.empty_like(weight)
    grad_gain = weight.new_empty(0) if gain is None else torch.empty_like(gain)
    outputs, channels = weight.shape[:2]
    taps = weight.shape[2:].numel()
    grad_kernel = dense(grad_kernel)
    weights.kernel_backward_kernel[(outputs,)](
        grad_kernel, grad_sums, weight, weight if gain is None else gain, grad_weight, grad_gain,
        taps, channels * taps, *_strides(grad_kernel), *_strides(weight),
        channels=channels, HAS_GAIN=gain is not None, HAS_SUMS=taps > 1,
        **_filter_blocks(channels, taps),
    )  # fmt: skip
    return grad_weight, grad_gain


def epilogue(
    y: Tensor,
    bias: Tensor | None,
    sums: Tensor,
    level: Tensor,
    spread: Tensor,
    geometry: Geometry,
    eps: float,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Finish the convolution's output y in place; the output, and mean and rstd of the patches.

    keep: y becomes the output before the bias, and the output another tensor.
    """
    batch, outputs, out_height, out_width = y.shape
    groups, outputs = geometry.groups, outputs // geometry.groups
    out = torch.empty_like(y) if keep else y
    mean, rstd = empty_map(y, groups), empty_map(y, groups)
    block_p, block_o = _blocks(y, outputs)
    pixels = out_height * out_width
    tiles, blocks = cdiv(pixels, block_p), cdiv(outputs, block_o)
    kernels.epilogue_kernel[(batch * tiles, groups * blocks)](
        y, out, y if bias is None else bias, sums, level, spread, mean, rstd,
        outputs, blocks, *level.shape[2:], out_width, pixels, tiles, *_strides(y), eps,
        WINDOW=_window(geometry), HAS_BIAS=bias is not None, KEEP=keep,
        BLOCK_P=block_p, BLOCK_O=block_o, BLOCK_T=_tap_block(geometry), num_warps=_warps(geometry),
    )  # fmt: skip
    return out, mean, rstd


def scale_backward(
    grad: Tensor,
    y: Tensor,
    level: Tensor,
    mean: Tensor,
    rstd: Tensor,
    geometry: Geometry,
    weight: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """grad * rstd; -rstd^2 * sum_o(grad * y) / I [N, G, *L]; and [O, K + 1] in float32: the
    gradients of the kernel's sums (unwritten for a 1x1 kernel, whose are zero) and of the bias.
    """
    grad = grad.contiguous(memory_format=_format(y))
    batch, outputs, out_height, out_width = y.shape
    groups, outputs = geometry.groups, outputs // geometry.groups
    grad_z = torch.empty_like(y)
    block_p, block_o = _blocks(y, outputs)
    pixels = out_height * out_width
    tiles, blocks = cdiv(pixels, block_p), cdiv(outputs, block_o)
    # A power of two: image sizes vary from step to step in detection, and must not all compile.
    strip = next_power_of_2(cdiv(batch * tiles * groups * blocks, _SPLITS))
    splits = cdiv(batch * tiles, strip)
    slopes = y.new_empty((blocks, *mean.shape), dtype=torch.float32)
    partial = y.new_empty((splits, y.shape[1], geometry.taps + 1), dtype=torch.float32)
    kernels.scale_backward_kernel[(splits, groups * blocks)](
        grad, y, grad_z, slopes, partial, level, mean, rstd,
        outputs, blocks, *level.shape[2:], out_width, pixels, tiles, batch * tiles,
        *_strides(y), slopes.stride(0), weight.shape[1:].numel(), WINDOW=_window(geometry),
        STRIP=strip, BLOCK_P=block_p, BLOCK_O=block_o, BLOCK_T=_tap_block(geometry),
        num_warps=_warps(geometry),
    )  # fmt: skip
    return grad_z, slopes[0] if blocks == 1 else slopes.sum(0), partial.sum(0)


def input_backward(
    x: Tensor,
    grad_conv: Tensor,
    level: Tensor,
    mean: Tensor,
    slope: Tensor,
    geometry: Geometry,
) -> Tensor:
    """The input's gradient: the convolution's own, plus what goes through the statistics."""
    batch, channels, height, width = x.shape
    groups, channels = geometry.groups, channels // geometry.groups
    grad_conv = grad_conv.contiguous(memory_format=_format(x))
    grad_x = grad_conv if grad_conv.dtype == x.dtype else torch.empty_like(x)
    block_p, block_c = _blocks(x, channels)
    tiles, blocks = cdiv(height * width, block_p), cdiv(channels, block_c)
    kernels.input_backward_kernel[(batch * tiles, groups * blocks)](
        x, grad_conv, grad_x, level, mean, slope,
        channels, blocks, width, *mean.shape[2:], height * width, tiles, *_strides(x),
        WINDOW=_window(geometry), BLOCK_P=block_p, BLOCK_C=block_c, BLOCK_T=_tap_block(geometry),
    )  # fmt: skip
    return grad_x


def pointwise(
    x: Tensor,
    kernel: Tensor,
    sums: Tensor,
    bias: Tensor | None,
    y: Tensor,
    geometry: Geometry,
    eps: float,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """A 1x1 convolution in one kernel, written to y; returns what :func:`epilogue` does."""
    batch, channels, _, width = x.shape
    out = torch.empty_like(y) if keep else y
    mean, rstd = empty_map(y, 1), empty_map(y, 1)
    outputs, out_width = y.shape[1], y.shape[3]
    images, pixels = batch, y.shape[2:].numel()
    if max(geometry.stride) == 1 and is_last(x) and is_last(y):
        images, pixels = 1, batch * pixels
    # 64 x 128 outputs a program, or 64 x 64 in float32, where TF32 is not allowed and products are
    # made in registers. Where that leaves most of a large GPU idle, tiles of a quarter the size.
    block_p, block_c = 64, _product_block(y.dtype)
    block_o = min(128 if block_c == 64 else 64, max(16, next_power_of_2(outputs)))
    if images * cdiv(pixels, block_p) * cdiv(outputs, block_o) < 128:
        block_p, block_o = 32, min(64, block_o)
    tiles, blocks = cdiv(pixels, block_p), cdiv(outputs, block_o)
    kernels.pointwise_kernel[(images * tiles * blocks,)](
        x, kernel, sums, x if bias is None else bias, y, out, mean, rstd,
        outputs, blocks, width, out_width, pixels, tiles, *_strides(x), *_strides(y), eps,
        channels=channels, STRIDE_H=geometry.stride[0], STRIDE_W=geometry.stride[1],
        PRECISION=_precision(), WIDEN=INTERPRETED and y.dtype == torch.bfloat16,
        HAS_BIAS=bias is not None, KEEP=keep, BLOCK_P=block_p, BLOCK_O=block_o, BLOCK_C=block_c,
    )  # fmt: skip
    return out, mean, rstd


def convolution(deviation: Tensor, kernel: Tensor, geometry: Geometry) -> Tensor:
    """The library's convolution, where the two pads of an axis may differ."""
    deviation, pads = _padded(deviation, geometry)
    return torch.convolution(
        deviation, kernel, None, geometry.stride, pads, geometry.dilation, False, (0, 0),
        geometry.groups,
    )  # fmt: skip


def convolution_backward(
    grad: Tensor, deviation: Tensor, kernel: Tensor, geometry: Geometry, *needs: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of :func:`convolution`'s input and kernel, where ``needs`` says so."""
    (height, width), (top, left) = deviation.shape[2:], (pads[0] for pads in geometry.pads)
    deviation, pads = _padded(deviation, geometry)
    grad_input, grad_kernel, _ = torch.ops.aten.convolution_backward(
        grad, deviation, kernel, None, geometry.stride, pads, geometry.dilation, False, (0, 0),
        geometry.groups, (*needs, False),
    )  # fmt: skip
    if grad_input is not None and grad_input.shape[2:] != (height, width):
        grad_input = grad_input[..., top : top + height, left : left + width]
    return grad_input, grad_kernel


def _padded(x: Tensor, geometry: Geometry) -> tuple[Tensor, tuple[int, ...]]:
    """What remains to the convolution: the same pad on both sides of an axis."""
    if all(left == right for left, right in geometry.pads):
        return x, tuple(left for left, _ in geometry.pads)
    return F.pad(x, [pad for pads in reversed(geometry.pads) for pad in pads]), (0, 0)


def _format(x: Tensor) -> torch.memory_format:
    return torch.channels_last if is_last(x) else torch.contiguous_format


def _strides(x: Tensor) -> tuple[int, int, int]:
    """(image, channel, pixel) in elements; not x.stride(), which is arbitrary for axes of one."""
    channels, pixels = x.shape[1], x.shape[2:].numel()
    steps = (1, channels) if is_last(x) else (pixels, 1)
    return channels * pixels, *steps


def _window(geometry: Geometry) -> tuple[int, ...]:
    pads = tuple(left for left, _ in geometry.pads)
    return (*geometry.kernel, *geometry.stride, *pads, *geometry.dilation)


def _tap_block(geometry: Geometry) -> int:
    return max(16, next_power_of_2(geometry.taps))  # tl.dot wants 16


def _blocks(x: Tensor, channels: int) -> tuple[int, int]:
    """(pixels, channels) of a tile: 4096 values, 32 a thread, wide along what is contiguous."""
    pixels, widest = (32, 128) if is_last(x) else (128, 32)
    return pixels, min(widest, max(16, next_power_of_2(channels)))


def _warps(geometry: Geometry) -> int:
    """The product with the taps keeps its operands in registers: twice the threads share them."""
    return 4 if geometry.taps == 1 else 8


def _filter_blocks(channels: int, taps: int) -> dict[str, int]:
    """A tile of up to 2048 weights."""
    block_t = next_power_of_2(taps)
    return {'BLOCK_C': min(next_power_of_2(channels), max(1, 2048 // block_t)), 'BLOCK_T': block_t}


def _product_block(dtype: torch.dtype) -> int:
    """Channels a step of the fused 1x1 convolution: a cache line of 128 bytes of each pixel."""
    return 128 // dtype.itemsize


def _precision() -> str:
    """Whether products of float32 are rounded to TF32: where cuDNN's convolutions may be."""
    return 'tf32' if torch.backends.cudnn.conv.fp32_precision == 'tf32' else 'ieee'
