"""Normalized convolution as Triton kernels, on CUDA tensors.

The form is that of aten.py (docs/math.md): every pixel's mean over the channels is taken off before
the convolution, and what it contributes comes back afterwards, a product of the kernel's sums with
the distances of single-channel maps. Here each step is one pass over memory:

    forward    statistics of x, which leaves x - m in the compute dtype; centre and gain of the
               weight; the convolution of the library; sums, rstd and bias on its output, in place
    backward   one pass over the output's gradient and y; the library's two gradients; the
               statistics' part of the input's gradient, in place; centre and gain of the weight's

A 1x1 convolution is one kernel forward: its loop over the channels gathers a pixel's statistics
while it multiplies, one read of x and one write of y. Larger kernels stay with the library: a fused
implicit GEMM would save the pass that writes x - m, and would have to match cuDNN's own at every
size. An ablation, ``center`` or ``scale`` off, goes through aten.py.

On a CPU the kernels run in Triton's interpreter where TRITON_INTERPRET=1 was set before the first
import, for tests.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec

import torch
from torch import Tensor

from . import aten
from .backend import Folded, Needs, Plan
from .geometry import Geometry
from .precision import without_autocast

_INSTALLED = find_spec('triton') is not None
INTERPRETED = _INSTALLED and os.environ.get('TRITON_INTERPRET') == '1'
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_OLDEST = (2, 11)  # with Triton 3.6
_MOST_TAPS = 64  # a tile holds all taps of a window


def missing() -> str | None:
    """Why this machine cannot run it."""
    if not _INSTALLED:
        return 'triton is not installed'
    if not INTERPRETED and not torch.cuda.is_available():
        return 'no CUDA device'
    if torch.__version__ < _OLDEST:
        return f'torch {torch.__version__} brings an older Triton than it was written for'
    return None


def refuses(input: Tensor, weight: Tensor, geometry: Geometry) -> str | None:
    """Why these tensors cannot go through it."""
    if geometry.ndim != 2 or geometry.transposed:
        return 'it has kernels for ordinary 2-D convolutions alone'
    if not input.is_cuda and not (INTERPRETED and input.device.type == 'cpu'):
        return f'the input is on {input.device.type}, wanted cuda'
    for name, tensor in (('input', input), ('weight', weight)):
        if tensor.dtype not in _DTYPES:
            return f'{name} is {tensor.dtype}, wanted one of 32 or 16 bits'
    if 0 in input.shape[2:]:
        return 'the image is empty'  # not so the output, where there is padding
    if geometry.taps > _MOST_TAPS:
        return f'the kernel has {geometry.taps} taps, wanted {_MOST_TAPS} at most'
    if input.shape[1:].numel() >= 2**31:
        return 'one sample holds 2**31 values or more'
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

    Folding is one small kernel here, so ``folded`` is not used.
    """
    if not (plan.center and plan.scale):
        return aten.forward(input, weight, bias, gain, plan, save, folded)
    keep = save and bias is not None
    out, y, mean, rstd = _forward(
        input, weight, bias, gain, _steps(plan.geometry), plan.eps, plan.dtype, keep
    )
    return out, y if keep else out, mean, rstd


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
        grad, input, weight, gain, *saved, _steps(plan.geometry), plan.dtype, needs.input,
        needs.weight or needs.gain,
    )  # fmt: skip
    return grad_input, grad_weight, grad_bias, grad_gain


def _steps(geometry: Geometry) -> list[int]:
    """All of a geometry but the kernel's size, for the operators below."""
    pads = (pad for pads in geometry.pads for pad in pads)
    return [*geometry.stride, *pads, *geometry.dilation, geometry.groups]


def _geometry(weight: Tensor, steps: Sequence[int]) -> Geometry:
    stride, (top, bottom, left, right), dilation = steps[:2], steps[2:6], steps[6:8]
    pads = ((top, bottom), (left, right))
    return Geometry(tuple(weight.shape[2:]), tuple(stride), pads, tuple(dilation), steps[8])


# Each direction is an operator of its own, opaque to torch.compile: it sees no graph break, and a
# CUDA graph records what they launch. Triton itself is imported when one of them first runs.


def _empty_forward(input, weight, bias, gain, steps, eps, dtype, keep):
    from . import triton_passes as passes

    out = passes.empty_output(input, weight, _geometry(weight, steps), dtype)
    y = torch.empty_like(out) if keep else out.new_empty(0)
    return out, y, passes.empty_map(out, steps[8]), passes.empty_map(out, steps[8])


def _run_forward(input, weight, bias, gain, steps, eps, dtype, keep):
    from . import triton_passes as passes

    if input.numel() == 0 or weight.numel() == 0:
        return _empty_forward(input, weight, bias, gain, steps, eps, dtype, keep)
    geometry, format = _geometry(weight, steps), passes.memory_format(input, weight)
    x = passes.dense(input)
    with without_autocast(x.device.type), torch.cuda.device_of(x):
        kernel, sums = passes.folded_kernel(passes.dense(weight), gain, geometry, dtype, format)
        if passes.is_pointwise(geometry):
            y = passes.empty_output(input, weight, geometry, dtype)
            out, mean, rstd = passes.pointwise(x, kernel, sums, bias, y, geometry, eps, keep)
        else:
            deviation, level, spread = passes.pixel_statistics(x, geometry.groups, dtype)
            y = passes.convolution(deviation, kernel, geometry).contiguous(memory_format=format)
            out, mean, rstd = passes.epilogue(y, bias, sums, level, spread, geometry, eps, keep)
    return out, y if keep else y.new_empty(0), mean, rstd


def _empty_backward(grad, input, weight, gain, y, mean, rstd, steps, dtype, *needs):
    from . import triton_passes as passes

    need_input, need_kernel = needs
    x, weight = passes.dense(input), passes.dense(weight)
    return (
        torch.empty_like(x) if need_input else x.new_empty(0),
        torch.empty_like(weight) if need_kernel else weight.new_empty(0),
        torch.empty_like(gain) if need_kernel and gain is not None else weight.new_empty(0),
        grad.new_empty(weight.shape[0], dtype=torch.float32),
    )


def _run_backward(grad, input, weight, gain, y, mean, rstd, steps, dtype, *needs):
    from . import triton_passes as passes

    if input.numel() == 0 or weight.numel() == 0:
        empty = _empty_backward(grad, input, weight, gain, y, mean, rstd, steps, dtype, *needs)
        return tuple(part.zero_() for part in empty)
    geometry, (need_input, need_kernel) = _geometry(weight, steps), needs
    grad_input, grad_weight, grad_gain = (t.new_empty(0) for t in (input, weight, weight))
    if not (need_input or need_kernel):
        return grad_input, grad_weight, grad_gain, grad.sum((0, 2, 3), dtype=torch.float32)
    x, weight = passes.dense(input), passes.dense(weight)
    with without_autocast(x.device.type), torch.cuda.device_of(x):
        deviation, level, _ = passes.pixel_statistics(x, geometry.groups, dtype)
        kernel, _ = passes.kernel(weight, gain, dtype, passes.memory_format(x, weight))
        grad_z, slope, sums = passes.scale_backward(grad, y, level, mean, rstd, geometry, weight)
        grad_conv, grad_kernel = passes.convolution_backward(
            grad_z, deviation, kernel, geometry, need_input, need_kernel
        )
        if need_input:
            grad_input = passes.input_backward(x, grad_conv, level, mean, slope, geometry)
        if need_kernel:
            grad_weight, grad_gain = passes.kernel_backward(grad_kernel, sums, weight, gain)
    return grad_input, grad_weight, grad_gain, sums[:, -1].clone()


_forward = torch.library.custom_op(
    'nc_plugins::triton_forward', _run_forward, mutates_args=(),
    schema='(Tensor input, Tensor weight, Tensor? bias, Tensor? gain, int[] steps, float eps, '
    'ScalarType dtype, bool keep) -> (Tensor, Tensor, Tensor, Tensor)',
)  # fmt: skip
_forward.register_fake(_empty_forward)
_backward = torch.library.custom_op(
    'nc_plugins::triton_backward', _run_backward, mutates_args=(),
    schema='(Tensor grad, Tensor input, Tensor weight, Tensor? gain, Tensor y, Tensor mean, '
    'Tensor rstd, int[] steps, ScalarType dtype, bool need_input, bool need_kernel) '
    '-> (Tensor, Tensor, Tensor, Tensor)',
)  # fmt: skip
_backward.register_fake(_empty_backward)
