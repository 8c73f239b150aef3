"""Normalized convolution in C++ on CPU tensors: the definition, a panel of columns at a time.

nc_plugins/csrc builds the im2col matrix in panels that fit the cache, standardises them there and
multiplies them by the weight. So there is no centred weight and no extra pass over the output.
Saved for backward are the input, the weight and three single-channel maps, but not the output.
"""

from __future__ import annotations

import sys
from importlib import import_module

import torch
from torch import Tensor
from torch.utils.flop_counter import conv_flop_count, register_flop_formula

from .backend import Folded, Needs, Plan
from .geometry import Geometry
from .precision import cast, upcast
from .sources import build_command

try:
    _C = import_module('._C', __package__)
except ModuleNotFoundError:
    _C, _problem = None, 'its C++ extension was not compiled'
except ImportError as error:  # compiled against another torch
    _C, _problem = None, f'its C++ extension does not load ({error})'
else:
    _problem = None
    if _C.torch_version.split('.')[:2] != torch.__version__.split('.')[:2]:
        _problem = (
            f'its C++ extension was built against torch {_C.torch_version}, this is '
            f'{torch.__version__}'
        )
if sys.platform == 'win32':
    _reason = 'its kernels use vector extensions of GCC and Clang that MSVC lacks'
else:
    _reason = _problem and f'{_problem}: build it with `{build_command()}`'


def missing() -> str | None:
    """See :class:`~.backend.Backend`."""
    return _reason


def refuses(input: Tensor, weight: Tensor, geometry: Geometry) -> str | None:
    """See :class:`~.backend.Backend`."""
    if input.device.type != 'cpu':
        return f'input is on {input.device}'
    if geometry.transposed:
        return 'it has no transposed convolution'
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
    """See :class:`~.backend.Backend`. Saves mean, its rounding error, and rstd, [N, G, *L] each."""
    geometry = plan.geometry
    out, *maps = torch.ops.nc_plugins.nc_conv_forward(
        upcast(input), upcast(weight), None if bias is None else upcast(bias),
        None if gain is None else upcast(gain), geometry.stride, _pads(geometry),
        geometry.dilation, geometry.groups, plan.eps, plan.center, plan.scale,
    )  # fmt: skip
    return cast(out, plan.dtype), *maps


def backward(
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    gain: Tensor | None,
    saved: tuple[Tensor, ...],
    needs: Needs,
    plan: Plan,
) -> tuple[Tensor, ...]:
    """See :class:`~.backend.Backend`."""
    geometry = plan.geometry
    return torch.ops.nc_plugins.nc_conv_backward(
        upcast(grad), upcast(input), upcast(weight), None if gain is None else upcast(gain),
        *saved, geometry.stride, _pads(geometry), geometry.dilation, geometry.groups,
        plan.center, plan.scale, *needs,
    )  # fmt: skip


def _pads(geometry: Geometry) -> list[int]:
    return [pad for pads in geometry.pads for pad in pads]


def _check_devices(input: Tensor, **others: Tensor | None) -> None:
    """Raise unless all tensors are on one device. torch sends 'cpu' beside 'meta' to the fakes."""
    for name, tensor in others.items():
        if tensor is not None and tensor.device != input.device:
            raise RuntimeError(
                f'nc_conv: {name} is on {tensor.device}, wanted {input.device} as input is'
            )


def _empty(input: Tensor, shape) -> Tensor:
    """A result of the C++: contiguous, or channels_last where the input is."""
    out = input.new_empty(shape)
    if input.dim() < 4:
        return out
    return out.to(memory_format=torch._prims_common.suggest_memory_format(input))


if _C is not None:  # the shapes of the results, for torch.compile and torch.export

    @torch.library.register_fake('nc_plugins::nc_conv_forward')
    def _(input, weight, bias, gain, stride, pads, dilation, groups, eps, center, scale):
        _check_devices(input, weight=weight, bias=bias, gain=gain)
        pads = tuple(zip(pads[::2], pads[1::2], strict=True))
        geometry = Geometry(tuple(weight.shape[2:]), tuple(stride), pads, tuple(dilation), groups)
        size = geometry.output_size(input.shape[2:])
        out = _empty(input, (input.shape[0], weight.shape[0], *size))
        maps = input.new_empty(input.shape[0], groups, *size)
        return out, maps, torch.empty_like(maps), torch.empty_like(maps)

    @torch.library.register_fake('nc_plugins::nc_conv_backward')
    def _(
        grad, input, weight, gain, mean, mean_correction, rstd, stride, pads, dilation, groups,
        center, scale, need_input, need_weight, need_bias, need_gain,
    ):  # fmt: skip
        maps = {'mean': mean, 'mean_correction': mean_correction, 'rstd': rstd}
        _check_devices(input, grad=grad, weight=weight, gain=gain, **maps)
        vectors = [
            input.new_empty(weight.shape[0] if need else 0) for need in (need_bias, need_gain)
        ]
        return (
            _empty(input, input.shape) if need_input else input.new_empty(0),
            weight.new_empty(weight.shape) if need_weight else input.new_empty(0),
            *vectors,
        )

    # For torch's FlopCounterMode: the convolution's own. The statistics are of lower order.
    @register_flop_formula(torch.ops.nc_plugins.nc_conv_forward)
    def _(x_shape, w_shape, bias, gain, *args, out_shape=None, **kwargs) -> int:
        return conv_flop_count(x_shape, w_shape, out_shape[0])

    @register_flop_formula(torch.ops.nc_plugins.nc_conv_backward)
    def _(grad_shape, x_shape, w_shape, *args, out_shape=None, **kwargs) -> int:
        need_input, need_weight, _, need_gain = args[-4:]
        return conv_flop_count(x_shape, w_shape, grad_shape) * (
            need_input + (need_weight or need_gain)
        )
