"""Launches the Triton kernels: allocates results, chooses block sizes, calls the kernels.

Block sizes follow from shapes by fixed rules. There is no autotuning, so a result depends on the
shapes only, and each kernel compiles in the first step. No function waits for the GPU or reads a
value of a tensor.
"""

from __future__ import annotations

import torch
from torch import Tensor
from triton import knobs

from . import triton_kernels as kernels
from .geometry import Geometry
from .precision import gradient_scale, input_scale
from .triton_layout import (
    cdiv,
    empty_map,
    format_of,
    is_channels_last,
    next_power_of_2,
    product_block,
    strides,
)
from .triton_pointwise_kernel import pointwise_kernel

_INTERPRETED = knobs.runtime.interpret
# Number of programs that share the gradient of the output: two to four per multiprocessor of a
# large GPU. It is a constant, because the order of summation depends on it.
_SPLITS = 512


def is_pointwise(geometry: Geometry) -> bool:
    """Whether :func:`pointwise` can run: a 1x1 kernel without groups or padding."""
    return geometry.taps == 1 and geometry.groups == 1 and not any(map(any, geometry.pads))


def pixel_statistics(x: Tensor, groups: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """x minus the mean of each pixel over its channels, in ``dtype``; that mean; the variance.

    The first is multiplied by :func:`~.precision.input_scale`. Mean and variance are [N, G, H, W]
    in float32.
    """
    channels = x.shape[1] // groups
    centered = torch.empty_like(x, dtype=dtype)
    pixel_mean = x.new_empty((x.shape[0], groups, *x.shape[2:]), dtype=torch.float32)
    pixel_var = torch.empty_like(pixel_mean)  # a storage of its own is aligned for any size
    images, pixels = x.shape[0], x.shape[2:].numel()
    if groups == 1 and is_channels_last(x):
        images, pixels = _merge_images(images, pixels)
    # 4096 values per program, 32 per thread, with the longer side along contiguous memory.
    block_c = min(1024 if is_channels_last(x) else 64, next_power_of_2(channels))
    block_p = min(4096 // block_c, next_power_of_2(pixels))
    num_warps = 4
    if block_c < channels and images * groups * cdiv(pixels, block_p) < 128:
        # Few programs would loop over many channels. More and wider ones take fewer steps.
        block_p = min(block_p, 16)
        block_c = max(block_c, min(8192 // block_p, next_power_of_2(channels)))
        num_warps = 8
    tiles = cdiv(pixels, block_p)
    kernels.pixel_statistics_kernel[(images * tiles, groups)](
        x, centered, pixel_mean, pixel_var, channels, pixels, tiles, *strides(x),
        SCALE=input_scale(dtype), ONE_BLOCK=channels <= block_c, BLOCK_P=block_p, BLOCK_C=block_c,
        num_warps=num_warps,
    )  # fmt: skip
    return centered, pixel_mean, pixel_var


def epilogue(
    y: Tensor,
    bias: Tensor | None,
    channel_sums: Tensor,
    pixel_mean: Tensor,
    pixel_var: Tensor,
    geometry: Geometry,
    eps: float,
    keep_y: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The output; mean and rstd of the patches [N, G, H', W'].

    Args:
        y: output of the convolution. It is overwritten by the output, or by the output before
            the bias with ``keep_y``. The output is another tensor then.
    """
    batch, outputs, *size = y.shape
    groups, outputs = geometry.groups, outputs // geometry.groups
    out = torch.empty_like(y) if keep_y else y
    mean, rstd = empty_map(y, groups), empty_map(y, groups)
    block_p, block_o = _product_tile(y, outputs, geometry)
    positions = y.shape[2:].numel()
    tiles, blocks = cdiv(positions, block_p), cdiv(outputs, block_o)
    kernels.epilogue_kernel[(batch * tiles, groups * blocks)](
        y, out, y if bias is None else bias, channel_sums, pixel_mean, pixel_var, mean, rstd,
        outputs, blocks, *pixel_mean.shape[2:], size[1], positions, tiles, *strides(y), eps,
        *_steps(geometry), **_constants(geometry), SCALE=input_scale(y.dtype),
        HAS_BIAS=bias is not None, STORE_Y=keep_y, BLOCK_P=block_p, BLOCK_O=block_o,
        num_warps=_warps(geometry),
    )  # fmt: skip
    return out, mean, rstd


def epilogue_backward(
    grad: Tensor,
    y: Tensor,
    pixel_mean: Tensor,
    mean: Tensor,
    rstd: Tensor,
    geometry: Geometry,
    patch_size: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients through rstd, bias and the product with the channel sums.

    Returns:
        The gradient of the convolution's output, in the dtype of y, times the last result.
        The gradient of the patch variances [N, G, H', W'], times 2 / patch_size.
        Gradients of the channel sums (K columns) and of the bias (the last column), [O, K + 1] in
        float32. The first K columns are uninitialized for a 1x1 kernel.
        The :func:`~.precision.gradient_scale`, None except in float16. It costs a pass over grad.
    """
    grad_scale = gradient_scale(grad, rstd, y.dtype)
    grad = grad.contiguous(memory_format=format_of(y))
    batch, outputs, *size = y.shape
    groups, outputs = geometry.groups, outputs // geometry.groups
    grad_z = torch.empty_like(y)
    block_p, block_o = _product_tile(y, outputs, geometry)
    positions = y.shape[2:].numel()
    tiles, blocks = cdiv(positions, block_p), cdiv(outputs, block_o)
    tiles_per_program = cdiv(batch * tiles * groups * blocks, _SPLITS)
    splits = cdiv(batch * tiles, tiles_per_program)
    grad_var = y.new_empty((blocks, *mean.shape), dtype=torch.float32)
    partial = y.new_empty((splits, y.shape[1], geometry.taps + 1), dtype=torch.float32)
    kernels.epilogue_backward_kernel[(splits, groups * blocks)](
        grad, y, grad_z, grad_var, partial, pixel_mean, mean, rstd,
        rstd if grad_scale is None else grad_scale,
        outputs, blocks, *pixel_mean.shape[2:], size[1], positions, tiles, batch * tiles,
        tiles_per_program, *strides(y), grad_var.stride(0), patch_size, *_steps(geometry),
        **_constants(geometry), HAS_SCALE=grad_scale is not None, BLOCK_P=block_p, BLOCK_O=block_o,
        num_warps=_warps(geometry),
    )  # fmt: skip
    return grad_z, grad_var[0] if blocks == 1 else grad_var.sum(0), partial.sum(0), grad_scale


def statistics_backward(
    x: Tensor,
    grad_centered: Tensor,
    pixel_mean: Tensor,
    mean: Tensor,
    grad_var: Tensor,
    grad_scale: Tensor | None,
    geometry: Geometry,
) -> Tensor:
    """The gradient of the input: that of the convolution, plus that through the variances.

    ``grad_scale`` is the one of :func:`epilogue_backward`.
    """
    batch, channels, height, width = x.shape
    groups, channels = geometry.groups, channels // geometry.groups
    grad_centered = grad_centered.contiguous(memory_format=format_of(x))
    grad_x = grad_centered if grad_centered.dtype == x.dtype else torch.empty_like(x)
    block_p, block_c = _tile(x, channels)
    tiles, blocks = cdiv(height * width, block_p), cdiv(channels, block_c)
    kernels.statistics_backward_kernel[(batch * tiles, groups * blocks)](
        x, grad_centered, grad_x, pixel_mean, mean, grad_var,
        mean if grad_scale is None else grad_scale,
        channels, blocks, width, *mean.shape[2:], height * width, tiles, *strides(x),
        *_steps(geometry), **_constants(geometry), HAS_SCALE=grad_scale is not None,
        BLOCK_P=block_p, BLOCK_C=block_c,
    )  # fmt: skip
    return grad_x


def pointwise(
    x: Tensor,
    folded: Tensor,
    block_sums: Tensor,
    bias: Tensor | None,
    y: Tensor,
    geometry: Geometry,
    eps: float,
    keep_y: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """A whole 1x1 convolution in one kernel. Writes y and returns the same as :func:`epilogue`."""
    batch, channels, _, width = x.shape
    out = torch.empty_like(y) if keep_y else y
    mean, rstd = empty_map(y, 1), empty_map(y, 1)
    outputs, out_width = y.shape[1], y.shape[3]
    images, positions = batch, y.shape[2:].numel()
    if max(geometry.stride) == 1 and is_channels_last(x) and is_channels_last(y):
        images, positions = _merge_images(images, positions)
    # 64 x 128 outputs per program. Float32 takes 64 x 64, because its products are computed in
    # registers unless TF32 is allowed. Tiles are a quarter the size where a large GPU would idle.
    block_p, block_c = 64, product_block(y.dtype)
    block_o = min(128 if block_c == 64 else 64, max(16, next_power_of_2(outputs)))
    if images * cdiv(positions, block_p) * cdiv(outputs, block_o) < 128:
        block_p, block_o = 32, min(64, block_o)
    tiles, blocks = cdiv(positions, block_p), cdiv(outputs, block_o)
    pointwise_kernel[(images * tiles * blocks,)](
        x, folded, block_sums, x if bias is None else bias, y, out, mean, rstd,
        channels, outputs, blocks, width, out_width, positions, tiles, *strides(x), *strides(y),
        eps, STRIDE=geometry.stride, PRECISION=_precision(y.dtype),
        WIDEN=_INTERPRETED and y.dtype == torch.bfloat16, SCALE=input_scale(y.dtype),
        HAS_BIAS=bias is not None, STORE_Y=keep_y,
        BLOCK_P=block_p, BLOCK_O=block_o, BLOCK_C=block_c,
    )  # fmt: skip
    return out, mean, rstd


def _merge_images(images: int, pixels: int) -> tuple[int, int]:
    """See channels_last images, whose pixels follow each other in memory, as one image.

    Kernels index the pixels of an image in int32.
    """
    return (1, images * pixels) if images * pixels < 2**30 else (images, pixels)


def _steps(geometry: Geometry) -> tuple[int, int, int, int]:
    """Padding (top, left) and dilation."""
    (top, _), (left, _) = geometry.pads
    return top, left, *geometry.dilation


def _constants(geometry: Geometry) -> dict:
    """The constexpr arguments of a kernel that gathers patches."""
    return {
        'KERNEL_SIZE': geometry.kernel,
        'STRIDE': geometry.stride,
        'BLOCK_T': max(16, next_power_of_2(geometry.taps)),  # tl.dot needs 16
    }


def _tile(x: Tensor, channels: int) -> tuple[int, int]:
    """(pixels, channels) of a tile: 4096 values, with the longer side along contiguous memory."""
    pixels, widest = (32, 128) if is_channels_last(x) else (128, 32)
    return pixels, min(widest, max(16, next_power_of_2(channels)))


def _product_tile(y: Tensor, outputs: int, geometry: Geometry) -> tuple[int, int]:
    """(positions, outputs) of a tile that is multiplied with all taps.

    With more than 16 taps a quarter of the size: the operands of the product, [positions, taps] and
    [taps, outputs], would not fit into the shared memory of small GPUs (99 KiB).
    """
    if geometry.taps <= 16:
        return _tile(y, outputs)
    return 32, min(32, max(16, next_power_of_2(outputs)))


def _warps(geometry: Geometry) -> int:
    """The product with the taps keeps its operands in registers. More threads share them."""
    return 4 if geometry.taps == 1 else 8


def _precision(dtype: torch.dtype) -> str:
    """'tf32' if products of float32 may be rounded to TF32, by the setting for cuDNN."""
    allowed = torch.backends.cudnn.conv.fp32_precision == 'tf32'
    return 'tf32' if dtype == torch.float32 and allowed else 'ieee'
