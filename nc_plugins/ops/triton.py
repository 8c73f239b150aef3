"""Normalized convolution as Triton kernels, on CUDA tensors.

The computation is that of aten.py (see docs/math.md): subtract from every pixel its mean over the
channels, convolve, then add the contribution of the subtracted means. The steps are

    forward     pixel_statistics     mean and variance of each pixel; x - mean, in the output dtype
                fold                 centre the weight and multiply it by the gain
                convolution          by cuDNN
                epilogue             patch statistics; contribution of the means, rstd and bias
    backward    pixel_statistics, fold
                epilogue_backward    one pass over the gradient and the output
                convolution          its backward, by cuDNN
                statistics_backward  add the gradient through the variances to that of the input
                fold_backward        gradients of weight and gain

triton_launch.py and triton_weight_launch.py have one function for each step but the convolution.

The forward pass of a 1x1 convolution is ``fold_pointwise`` and one fused kernel (``pointwise``),
which computes the statistics while it multiplies. It reads x once and writes the output once.
Larger kernels use cuDNN. A fused kernel would avoid writing and reading x - mean, but it would have
to be as fast as cuDNN at every size.

With ``center=False`` or ``scale=False`` the code of aten.py runs.

Tests run the kernels on CPU tensors in Triton's interpreter. This needs TRITON_INTERPRET=1 before
the first import of Triton.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

from . import aten
from . import triton_layout as layout
from .backend import Folded, Needs, Plan
from .geometry import Geometry
from .precision import without_autocast

_INSTALLED = find_spec('triton') is not None
INTERPRETED = _INSTALLED and os.environ.get('TRITON_INTERPRET') == '1'
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_MIN_TORCH = (2, 11)  # comes with Triton 3.6
_MAX_TAPS = 64  # a tile holds all taps of a patch


@cache  # torch.cuda.is_available() takes as long as a small convolution
def missing() -> str | None:
    """See :class:`~.backend.Backend`."""
    if not _INSTALLED:
        return 'triton is not installed'
    if not INTERPRETED and not torch.cuda.is_available():
        return 'no CUDA device'
    if not INTERPRETED and torch.version.hip is not None:
        return 'the GPU is from AMD, wanted NVIDIA'
    if torch.__version__ < _MIN_TORCH:
        return f'torch is {torch.__version__}, wanted 2.11 or newer'
    return None


def refuses(input: Tensor, weight: Tensor, geometry: Geometry) -> str | None:
    """See :class:`~.backend.Backend`."""
    if geometry.ndim != 2 or geometry.transposed:
        return 'it supports only 2-d convolutions that are not transposed'
    if not input.is_cuda and not (INTERPRETED and input.device.type == 'cpu'):
        return f'input is on {input.device.type}, wanted cuda'
    if input.is_cuda and torch.cuda.get_device_properties(input.device).major < 8:
        return 'the compute capability of the GPU is below 8.0'  # no tensor cores in Triton
    for name, tensor in (('input', input), ('weight', weight)):
        if tensor.dtype not in _DTYPES:
            return f'{name} is {tensor.dtype}, wanted float32, bfloat16 or float16'
    if 0 in input.shape[2:]:
        return 'the image is empty'  # padding alone still gives an output
    if geometry.taps > _MAX_TAPS:
        return f'the kernel has {geometry.taps} taps, wanted at most {_MAX_TAPS}'
    output_size = weight.shape[0] * math.prod(geometry.output_size(input.shape[2:]))
    if max(math.prod(input.shape[1:]), output_size) >= 2**31:
        return 'one sample of the input or output has 2**31 values or more'
    return None


def forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gain: Tensor | None,
    plan: Plan,
    save: bool,
    folded: Folded | None = None,
) -> tuple[Tensor, ...]:
    """See :class:`~.backend.Backend`. Saves the same tensors as aten.py.

    Folding is one small kernel, and folding a folded weight again does not change it. So ``folded``
    is used only by aten.py.
    """
    if not (plan.center and plan.scale):
        return aten.forward(input, weight, bias, gain, plan, save, folded)
    keep_y = save and bias is not None
    out, y, mean, rstd = _forward(
        input, weight, bias, gain, _pack(plan.geometry), plan.eps, plan.dtype, keep_y
    )
    return out, y if keep_y else out, mean, rstd


def backward(
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    gain: Tensor | None,
    saved: tuple[Tensor, ...],
    needs: Needs,
    plan: Plan,
) -> tuple[Tensor | None, ...]:
    """See :class:`~.backend.Backend`."""
    if not (plan.center and plan.scale):
        return aten.backward(grad, input, weight, gain, saved, needs, plan)
    grad_input, grad_weight, grad_gain, grad_bias = _backward(
        grad, input, weight, gain, *saved, _pack(plan.geometry), plan.dtype, needs.input,
        needs.weight or needs.gain,
    )  # fmt: skip
    return grad_input, grad_weight, grad_bias, grad_gain


def _pack(geometry: Geometry) -> list[int]:
    """A geometry without the kernel size as integers, which a custom operator accepts."""
    pads = (pad for pads in geometry.pads for pad in pads)
    return [*geometry.stride, *pads, *geometry.dilation, geometry.groups]


def _unpack(packed: Sequence[int], weight: Tensor) -> Geometry:
    """The inverse of :func:`_pack`."""
    stride, (top, bottom, left, right), dilation = packed[:2], packed[2:6], packed[6:8]
    pads = ((top, bottom), (left, right))
    return Geometry(tuple(weight.shape[2:]), tuple(stride), pads, tuple(dilation), packed[8])


# Forward and backward are custom operators, so torch.compile has no graph break. The
# launching modules are imported inside, because they import Triton, which may not be installed and
# takes time to load.


def _forward_fake(input, weight, bias, gain, packed, eps, dtype, keep_y):
    out = layout.empty_output(input, weight, _unpack(packed, weight), dtype)
    y = torch.empty_like(out) if keep_y else out.new_empty(0)
    groups = packed[-1]
    return out, y, layout.empty_map(out, groups), layout.empty_map(out, groups)


def _forward_impl(input, weight, bias, gain, packed, eps, dtype, keep_y):
    from . import triton_launch as launch
    from . import triton_weight_launch as weight_launch

    if input.numel() == 0 or weight.numel() == 0:
        return _forward_fake(input, weight, bias, gain, packed, eps, dtype, keep_y)
    geometry = _unpack(packed, weight)
    format = layout.memory_format(input, weight)
    x, weight = layout.dense(input), layout.dense(weight)
    bias, gain = (None if t is None else t.contiguous() for t in (bias, gain))
    with without_autocast(x.device.type), torch.cuda.device_of(x):
        if launch.is_pointwise(geometry):
            folded, block_sums = weight_launch.fold_pointwise(weight, gain, dtype)
            y = layout.empty_output(input, weight, geometry, dtype)
            out, mean, rstd = launch.pointwise(
                x, folded, block_sums, bias, y, geometry, eps, keep_y
            )
        else:
            folded, channel_sums = weight_launch.fold(weight, gain, dtype, format)
            centered, pixel_mean, pixel_var = launch.pixel_statistics(x, geometry.groups, dtype)
            y = _convolve(centered, folded, geometry).contiguous(memory_format=format)
            out, mean, rstd = launch.epilogue(
                y, bias, channel_sums, pixel_mean, pixel_var, geometry, eps, keep_y
            )
    return out, y if keep_y else y.new_empty(0), mean, rstd


def _backward_fake(
    grad, input, weight, gain, y, mean, rstd, packed, dtype, need_input, need_folded
):
    x, weight = layout.dense(input), layout.dense(weight)
    return (
        torch.empty_like(x) if need_input else x.new_empty(0),
        torch.empty_like(weight) if need_folded else weight.new_empty(0),
        weight.new_empty(0) if gain is None or not need_folded else gain.new_empty(gain.shape),
        grad.new_empty(weight.shape[0], dtype=torch.float32),
    )


def _backward_impl(
    grad, input, weight, gain, y, mean, rstd, packed, dtype, need_input, need_folded
):
    from . import triton_launch as launch
    from . import triton_weight_launch as weight_launch

    if input.numel() == 0 or weight.numel() == 0:
        empty = _backward_fake(
            grad, input, weight, gain, y, mean, rstd, packed, dtype, need_input, need_folded
        )
        return tuple(part.zero_() for part in empty)
    grad_input, grad_weight, grad_gain = (t.new_empty(0) for t in (input, weight, weight))
    if not (need_input or need_folded):
        return grad_input, grad_weight, grad_gain, grad.sum((0, 2, 3), dtype=torch.float32)
    geometry = _unpack(packed, weight)
    x, weight = layout.dense(input), layout.dense(weight)
    gain = None if gain is None else gain.contiguous()
    with without_autocast(x.device.type), torch.cuda.device_of(x):
        centered, pixel_mean, _ = launch.pixel_statistics(x, geometry.groups, dtype)
        folded, _ = weight_launch.fold(weight, gain, dtype, layout.memory_format(x, weight))
        grad_z, grad_var, grad_sums, grad_scale = launch.epilogue_backward(
            grad, y, pixel_mean, mean, rstd, geometry, weight.shape[1:].numel()
        )
        grad_centered, grad_folded = _convolve_backward(
            grad_z, centered, folded, geometry, need_input, need_folded
        )
        if need_input:
            grad_input = launch.statistics_backward(
                x, grad_centered, pixel_mean, mean, grad_var, grad_scale, geometry
            )
        if need_folded:
            grad_weight, grad_gain = weight_launch.fold_backward(
                grad_folded, grad_sums, weight, gain, grad_scale
            )
    return grad_input, grad_weight, grad_gain, grad_sums[:, -1].clone()


def _convolve(centered: Tensor, folded: Tensor, geometry: Geometry) -> Tensor:
    """The convolution of torch. The two pads of an axis may differ."""
    centered, pads = _pad(centered, geometry)
    return torch.convolution(
        centered, folded, None, geometry.stride, pads, geometry.dilation, False, (0, 0),
        geometry.groups,
    )  # fmt: skip


def _convolve_backward(grad, centered, folded, geometry, need_input, need_folded):
    """Gradients of the two tensors of :func:`_convolve`. None where not needed."""
    (height, width), (top, left) = centered.shape[2:], (pads[0] for pads in geometry.pads)
    centered, pads = _pad(centered, geometry)
    grad_centered, grad_folded, _ = torch.ops.aten.convolution_backward(
        grad, centered, folded, None, geometry.stride, pads, geometry.dilation, False, (0, 0),
        geometry.groups, (need_input, need_folded, False),
    )  # fmt: skip
    if need_input and grad_centered.shape[2:] != (height, width):
        grad_centered = grad_centered[..., top : top + height, left : left + width]
    return grad_centered, grad_folded


def _pad(x: Tensor, geometry: Geometry) -> tuple[Tensor, tuple[int, ...]]:
    """Pad x only if the two pads of an axis differ; the padding left for the convolution."""
    if all(left == right for left, right in geometry.pads):
        return x, tuple(left for left, _ in geometry.pads)
    return F.pad(x, [pad for pads in reversed(geometry.pads) for pad in pads]), (0, 0)


def _operator(name: str, schema: str, implementation, fake):
    """A custom operator. torch.library.custom_op takes 10 microseconds more for each call."""
    name = f'nc_plugins::triton_{name}'
    torch.library.define(name, schema, tags=torch.Tag.pt2_compliant_tag)
    torch.library.impl(name, 'default', implementation)
    torch.library.register_fake(name, fake)
    return getattr(torch.ops.nc_plugins, name.partition('::')[2]).default


_forward = _operator(
    'forward',
    '(Tensor input, Tensor weight, Tensor? bias, Tensor? gain, int[] packed, float eps, '
    'ScalarType dtype, bool keep_y) -> (Tensor, Tensor, Tensor, Tensor)',
    _forward_impl, _forward_fake,
)  # fmt: skip
_backward = _operator(
    'backward',
    '(Tensor grad, Tensor input, Tensor weight, Tensor? gain, Tensor y, Tensor mean, '
    'Tensor rstd, int[] packed, ScalarType dtype, bool need_input, bool need_folded) '
    '-> (Tensor, Tensor, Tensor, Tensor)',
    _backward_impl, _backward_fake,
)  # fmt: skip
