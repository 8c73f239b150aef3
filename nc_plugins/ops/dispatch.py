"""The one path from an operator's arguments to a kernel: check, plan, choose a backend, run."""

from __future__ import annotations

import logging
import warnings
from functools import lru_cache

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.overrides import handle_torch_function, has_torch_function

from . import aten, reference, triton
from .arguments import check_eps, check_tensors, make_geometry
from .autograd import BACKENDS as KERNELS
from .autograd import NormalizedConvolution
from .backend import Folded, Plan
from .geometry import Geometry
from .precision import output_dtype, without_autocast
from .self_test import failure

BACKENDS = {**KERNELS, 'reference': reference}  # the fastest first
if triton.INTERPRETED:  # the interpreter is the slowest of all
    BACKENDS['triton'] = BACKENDS.pop('triton')
_COMPILED_AT_RUN_TIME = ('triton',)
_announced: set[tuple[str, str]] = set()  # backends and devices
_cached_geometry = lru_cache(maxsize=4096, typed=True)(make_geometry)
_is_exporting = getattr(torch.compiler, 'is_exporting', lambda: False)  # from torch 2.7 on


def available_backends() -> tuple[str, ...]:
    """Names of the backends that can run on this machine, the fastest first.

    ``backend='auto'`` takes the first one that can run with the tensors it is given.
    """
    return tuple(name for name, backend in BACKENDS.items() if backend.missing() is None)


def normalized_convolution(
    name: str,
    ndim: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gain: Tensor | None,
    stride,
    padding,
    dilation,
    groups: int,
    output_padding,
    eps: float,
    center: bool,
    scale: bool,
    backend: str,
    folded: Folded | None = None,
) -> Tensor:
    """Run the operator called ``name`` over ``ndim`` spatial axes. See :func:`~.nc_conv.nc_conv2d`.

    Args:
        output_padding: None for an ordinary convolution.
        folded: :func:`~.backend.fold` of this weight, for inference. The gain is then None.

    Raises:
        TypeError, ValueError: as the public operators.
    """
    if has_torch_function((input, weight, bias, gain)):  # torch.fx records one call
        return handle_torch_function(
            normalized_convolution, (input, weight, bias, gain), name, ndim, input, weight, bias,
            gain, stride, padding, dilation, groups, output_padding, eps, center, scale, backend,
            folded,
        )  # fmt: skip
    check_tensors(name, input, weight, bias, gain)
    check_eps(name, eps)
    geometry = plan_geometry(
        name, ndim, input, weight, bias, gain, stride, padding, dilation, groups, output_padding
    )
    chosen = choose_backend(backend, input, weight, geometry)
    plan = Plan(geometry, eps, center, scale, output_dtype(input))
    with without_autocast(input.device.type):
        return _run(chosen, input, weight, bias, gain, plan, folded)


def plan_geometry(name, ndim, input, weight, bias, gain, *steps) -> Geometry:
    """:func:`~.arguments.make_geometry` of tensors, cached by their shapes."""
    shapes = [None if t is None else t.shape for t in (input, weight, bias, gain)]
    if torch.jit.is_tracing():  # sizes are tensors; the checks need their values
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', torch.jit.TracerWarning)
            shapes = [None if shape is None else [int(n) for n in shape] for shape in shapes]
            return make_geometry(name, ndim, *shapes, *steps)
    if torch.compiler.is_compiling():  # sizes may be symbols, which no cache can hold
        return make_geometry(name, ndim, *shapes, *steps)
    try:
        return _cached_geometry(name, ndim, *shapes, *steps)
    except TypeError:  # unhashable: steps in a list, symbolic sizes
        return make_geometry(name, ndim, *shapes, *steps)


def choose_backend(name: str, input: Tensor, weight: Tensor, geometry: Geometry) -> str:
    """The backend that runs with these tensors: ``name``, or the fastest one for 'auto'.

    The choice of 'auto' is logged once per backend and kind of device. It is a warning if a faster
    backend for these tensors is not installed.

    Raises:
        ValueError: the name is unknown, or the backend cannot run with these tensors.
    """
    if name == 'auto':
        return _fastest(input, weight, geometry)
    if name not in BACKENDS:
        known = ', '.join(repr(known) for known in ('auto', *BACKENDS))
        raise ValueError(f'backend is {name!r}, wanted one of {known}')
    reason = BACKENDS[name].missing() or BACKENDS[name].refuses(input, weight, geometry)
    if reason is not None:
        raise ValueError(f'backend {name!r} cannot run here: {reason}')
    return name


def _fastest(input: Tensor, weight: Tensor, geometry: Geometry) -> str:
    skipped = {}
    for name, backend in BACKENDS.items():
        reason = backend.missing() or backend.refuses(input, weight, geometry)
        if reason is None and name in _COMPILED_AT_RUN_TIME:
            reason = failure(name, input.device, output_dtype(input))
        if reason is None:
            break
        skipped[name] = reason
    announced = (name, input.device.type)
    if announced not in _announced and not torch.compiler.is_compiling():
        _announced.add(announced)
        # A faster backend that is for these tensors, but not on this machine.
        lacking = any(BACKENDS[n].refuses(input, weight, geometry) is None for n in skipped)
        level = logging.WARNING if lacking else logging.INFO
        reasons = '; '.join(f'{name!r}: {reason}' for name, reason in skipped.items())
        note = f' ({reasons})' if reasons else ''
        logging.getLogger('nc_plugins').log(level, "backend 'auto' runs %r%s", name, note)
    return name


def _run(backend, input, weight, bias, gain, plan, folded):
    if backend == 'reference':
        return reference.nc_conv(input, weight, bias, gain, plan)
    tensors = (input, weight, bias, gain)
    if plan.geometry.ndim == 1:  # as a 2-d convolution over images of height 1
        plan = plan._replace(geometry=plan.geometry.lifted())
        if folded is not None:
            folded = folded._replace(weight=folded.weight.unsqueeze(2))
        input, weight = input.unsqueeze(2), weight.unsqueeze(2)
        return _run(backend, input, weight, bias, gain, plan, folded).squeeze(2)
    if _needs_stock_operators(tensors):
        return aten.composite(*tensors, plan, folded)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        return NormalizedConvolution.apply(*tensors, backend, plan)
    return KERNELS[backend].forward(*tensors, plan, save=False, folded=folded)[0]


def _needs_stock_operators(tensors) -> bool:
    """Whether something outside wants to see, transform or export the operators inside.

    torch.jit.trace, torch.export, the transforms of torch.func, and forward-mode AD have rules for
    stock operators. They have none for an autograd.Function that calls C++ or Triton.
    """
    if torch.jit.is_tracing() or _is_exporting():
        return True
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or any(
        forward_ad.unpack_dual(t).tangent is not None for t in tensors if t is not None
    )
