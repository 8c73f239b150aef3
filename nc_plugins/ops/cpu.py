"""Normalized convolution in C++ on CPU tensors: the definition itself, a few columns at a time.

nc_plugins/csrc builds the im2col matrix in pieces that stay in the cache, standardises them there
and multiplies them by the weight as it is. So there is no centred weight, no pass over the output,
and kept for backward are the input, the weight and three single-channel maps, not the output.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.flop_counter import conv_flop_count, register_flop_formula

from . import aten
from .geometry import Geometry
from .statistics import cast, upcast

try:
    from . import _C
except ImportError as error:  # not built, or against another torch
    _C, _reason = None, f'its C++ extension does not load ({error})'
else:
    _reason = None
    if _C.torch_version.split('.')[:2] != torch.__version__.split('.')[:2]:
        _reason = (
            f'its C++ extension was built against torch {_C.torch_version}, this is '
            f'{torch.__version__}: install nc_plugins again'
        )


def missing() -> str | None:
    """Why this machine cannot run it."""
    return _reason


def refuses(input: Tensor, weight: Tensor, geometry: Geometry) -> str | None:
    """Why these tensors cannot go through it."""
    if input.device.type != 'cpu' or weight.device.type != 'cpu':
        return f'input is on {input.device}'
    if geometry.transposed:
        return 'it has no transposed convolution'
    if torch.jit.is_tracing():
        return 'a trace is to hold stock operators'
    return None


def nc_conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gain: Tensor | None,
    geometry: Geometry,
    eps: float,
    center: bool,
    scale: bool,
) -> Tensor:
    """For a checked geometry. [N, C, *S] -> [N, O, *L]. Computes in float32 (float64 for it)."""
    tensors = (input, weight, bias, gain)
    options = (geometry, eps, center, scale, aten.output_dtype(input))
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        return _NCConv.apply(*tensors, *options)
    return _forward(*tensors, *options)[0]


class _NCConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, input, weight, bias, gain, *options):
        out, *statistics = _forward(input, weight, bias, gain, *options)
        ctx.save_for_backward(input, weight, gain, *statistics)
        ctx.options = options
        ctx.bias_dtype = None if bias is None else bias.dtype
        return out

    @staticmethod
    def backward(ctx, grad):
        input, weight, gain, *statistics = ctx.saved_tensors
        geometry, _, center, scale, _ = ctx.options
        need_input, need_weight, need_bias, need_gain = ctx.needs_input_grad[:4]
        if torch.is_grad_enabled():  # create_graph: let autograd differentiate stock operators
            needs = (need_input, need_weight, need_gain)
            rest = [axis for axis in range(grad.dim()) if axis != 1]
            grad_bias = grad.sum(rest, dtype=ctx.bias_dtype) if need_bias else None
            tensors = (input, weight, gain)
            with aten.without_autocast('cpu'):
                grads = aten.differentiable_backward(grad, tensors, needs, ctx.options)
            return *grads[:2], grad_bias, grads[2], *(None for _ in ctx.options)
        grads = torch.ops.nc_plugins.nc_conv_backward(
            upcast(grad), upcast(input), upcast(weight), None if gain is None else upcast(gain),
            *statistics, geometry.stride, _flat(geometry.pads), geometry.dilation, geometry.groups,
            center, scale, need_input, need_weight, need_bias, need_gain,
        )  # fmt: skip
        dtypes = (input.dtype, weight.dtype, ctx.bias_dtype, gain.dtype if need_gain else None)
        grads = (
            cast(grad, dtype) if need else None
            for grad, dtype, need in zip(grads, dtypes, ctx.needs_input_grad, strict=False)
        )
        return *grads, *(None for _ in ctx.options)


def _forward(input, weight, bias, gain, geometry, eps, center, scale, dtype):
    out, *statistics = torch.ops.nc_plugins.nc_conv_forward(
        upcast(input), upcast(weight), None if bias is None else upcast(bias),
        None if gain is None else upcast(gain), geometry.stride, _flat(geometry.pads),
        geometry.dilation, geometry.groups, eps, center, scale,
    )  # fmt: skip
    return cast(out, dtype), *statistics


def _flat(pads) -> list[int]:
    """[left0, right0, left1, right1, ...], as the C++ takes them."""
    return [zeros for pair in pads for zeros in pair]


def _arranged_as(input: Tensor, shape) -> Tensor:
    """What the C++ returns: contiguous, or channels_last where the input is."""
    out = input.new_empty(shape)
    if input.dim() < 4:
        return out
    return out.to(memory_format=torch._prims_common.suggest_memory_format(input))


if _C is not None:  # shapes alone, for torch.compile and export

    @torch.library.register_fake('nc_plugins::nc_conv_forward')
    def _(input, weight, bias, gain, stride, pads, dilation, groups, eps, center, scale):
        size = [
            (n + left + right - d * (k - 1) - 1) // s + 1
            for n, left, right, d, k, s in zip(
                input.shape[2:], pads[::2], pads[1::2], dilation, weight.shape[2:], stride,
                strict=True,
            )
        ]  # fmt: skip
        out = _arranged_as(input, (input.shape[0], weight.shape[0], *size))
        maps = input.new_empty(input.shape[0], groups, *size)
        return out, maps, torch.empty_like(maps), torch.empty_like(maps)

    @torch.library.register_fake('nc_plugins::nc_conv_backward')
    def _(
        grad, input, weight, gain, mean, mean_correction, rstd, stride, pads, dilation, groups,
        center, scale, need_input, need_weight, need_bias, need_gain,
    ):  # fmt: skip
        vectors = [
            input.new_empty(weight.shape[0] if need else 0) for need in (need_bias, need_gain)
        ]
        return (
            _arranged_as(input, input.shape) if need_input else input.new_empty(0),
            weight.new_empty(weight.shape) if need_weight else input.new_empty(0),
            *vectors,
        )

    # What torch's FlopCounterMode counts: the convolution's own, statistics are not of that order.
    @register_flop_formula(torch.ops.nc_plugins.nc_conv_forward)
    def _(x_shape, w_shape, bias, gain, *args, out_shape=None, **kwargs) -> int:
        return conv_flop_count(x_shape, w_shape, out_shape[0])

    @register_flop_formula(torch.ops.nc_plugins.nc_conv_backward)
    def _(grad_shape, x_shape, w_shape, *args, out_shape=None, **kwargs) -> int:
        need_input, need_weight, _, need_gain = args[-4:]
        return conv_flop_count(x_shape, w_shape, grad_shape) * (
            need_input + (need_weight or need_gain)
        )
