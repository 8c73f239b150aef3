"""The public operators: check the arguments, choose a backend, call it."""

from __future__ import annotations

import logging
from types import ModuleType

import torch
from torch import Tensor

from . import aten, cpu, reference, triton
from .geometry import Geometry, check

# Fastest first. Each module has
#     nc_conv(input, weight, bias, gain, geometry, eps, center, scale)   for a checked geometry,
#     missing()                           why it cannot run on this machine, None if it can,
#     refuses(input, weight, geometry)    why not on these tensors, None if it can,
# and perhaps fold(weight, gain, geometry, center, dtype), whose result nc_conv then takes as a
# ninth argument in the place of weight and gain: layers keep it in evaluation.
_BACKENDS: dict[str, ModuleType] = {
    'triton': triton,
    'cpu': cpu,
    'aten': aten,
    'reference': reference,
}
if triton.INTERPRETED:  # then the slowest of all
    _BACKENDS['triton'] = _BACKENDS.pop('triton')
_announced: set[str] = set()
_is_exporting = getattr(torch.compiler, 'is_exporting', lambda: False)  # from torch 2.7 on


def available_backends() -> tuple[str, ...]:
    """Names of the backends that can run on this machine, fastest first.

    'auto' takes the first that can run the tensors at hand.
    """
    return tuple(name for name, backend in _BACKENDS.items() if backend.missing() is None)


def nc_conv1d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride=1, padding=0, dilation=1,
    groups: int = 1, *, gain: Tensor | None = None, eps: float = 1e-5, center: bool = True,
    scale: bool = True, backend: str = 'auto',
) -> Tensor:  # fmt: skip
    """:func:`nc_conv2d` over one spatial axis.

    Shapes: input [N, C, L], weight [O, C/groups, k], bias and gain [O] -> [N, O, L'].
    """
    steps = (stride, padding, dilation, groups, eps)
    geometry = check('nc_conv1d', 1, input, weight, bias, gain, *steps)
    module = backend_for(backend, input, weight, geometry)
    return module.nc_conv(input, weight, bias, gain, geometry, eps, center, scale)


def nc_conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride=1, padding=0, dilation=1,
    groups: int = 1, *, gain: Tensor | None = None, eps: float = 1e-5, center: bool = True,
    scale: bool = True, backend: str = 'auto',
) -> Tensor:  # fmt: skip
    """Convolve ``input`` with ``weight`` after standardising every patch.

    Shapes: input [N, C, H, W] (any strides; N may be 0), weight [O, C/groups, kh, kw], bias and
    gain [O] -> [N, O, H', W'] in the input's memory format.

    Dtypes: float64, float32, bfloat16, float16, the same for all tensors. Statistics are taken in
    float32 (float64 for float64) whatever the dtype. Under autocast dtypes may differ and the
    output has the dtype that a convolution has there.

    Args:
        stride, padding, dilation: in input pixels, as in ``torch.nn.functional.conv2d``; padding
            may be 'same' or 'valid'. Padded zeros belong to the patch.
        gain: multiplies each output channel before ``bias`` is added, at no pass over the output.
        eps: in squared units of ``input``, added to the variance inside the root.
        center: subtract the patch mean. scale: divide by the patch's standard deviation (which is
            taken about the mean in either case). Both False is the plain convolution.
        backend: 'auto', or a name of :func:`available_backends`.

    Accuracy in float32: that of the im2col definition for patches with mean/std up to about 3, and
    better by a digit or more from 100 on; docs/math.md has the figures.

    Raises:
        TypeError: not tensors, not floating point, or different dtypes outside autocast.
        ValueError: shapes do not fit, eps <= 0, a backend that is unknown or cannot run these
            tensors, or C/groups*kh*kw == 1 (the variance of one value is always 0).

    Source: arXiv 2005.05274, Sec. 2.1 and 2.4. Definition: ops/reference.py.
    """
    steps = (stride, padding, dilation, groups, eps)
    geometry = check('nc_conv2d', 2, input, weight, bias, gain, *steps)
    module = backend_for(backend, input, weight, geometry)
    return module.nc_conv(input, weight, bias, gain, geometry, eps, center, scale)


def nc_conv3d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride=1, padding=0, dilation=1,
    groups: int = 1, *, gain: Tensor | None = None, eps: float = 1e-5, center: bool = True,
    scale: bool = True, backend: str = 'auto',
) -> Tensor:  # fmt: skip
    """:func:`nc_conv2d` over three spatial axes.

    Shapes: input [N, C, D, H, W], weight [O, C/groups, kd, kh, kw] -> [N, O, D', H', W'].
    """
    steps = (stride, padding, dilation, groups, eps)
    geometry = check('nc_conv3d', 3, input, weight, bias, gain, *steps)
    module = backend_for(backend, input, weight, geometry)
    return module.nc_conv(input, weight, bias, gain, geometry, eps, center, scale)


def nc_conv_transpose2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride=1, padding=0,
    output_padding=0, groups: int = 1, dilation=1, *, gain: Tensor | None = None,
    eps: float = 1e-5, center: bool = True, scale: bool = True, backend: str = 'auto',
) -> Tensor:  # fmt: skip
    """Transposed convolution that standardises what each output position receives.

    Shapes: input [N, C, H, W], weight [C, O/groups, kh, kw], bias and gain [O] -> [N, O, H', W'];
    the order of arguments is that of ``torch.nn.functional.conv_transpose2d``.

    Position k of the output sees the input pixels whose kernel covers it: C/groups * taps_k values.
    The statistics are over these alone, not over the zeros that a stride inserts nor those beyond
    the border. A position that one value or none reaches gives the bias.

    Otherwise as :func:`nc_conv2d`.
    """
    steps = (stride, padding, dilation, groups, eps, output_padding)
    geometry = check('nc_conv_transpose2d', 2, input, weight, bias, gain, *steps)
    module = backend_for(backend, input, weight, geometry)
    return module.nc_conv(input, weight, bias, gain, geometry, eps, center, scale)


def backend_for(name: str, input: Tensor, weight: Tensor, geometry: Geometry) -> ModuleType:
    """The module that runs these tensors; ``name`` as of the public operators."""
    if name == 'auto':
        return _BACKENDS[_choose(input, weight, geometry)]
    if name not in _BACKENDS:
        known = ', '.join(repr(known) for known in ('auto', *_BACKENDS))
        raise ValueError(f'backend is {name!r}, wanted one of {known}')
    backend = _BACKENDS[name]
    reason = backend.missing() or backend.refuses(input, weight, geometry)
    if reason is not None:
        raise ValueError(f'backend {name!r} cannot run here: {reason}')
    return backend


def _choose(input: Tensor, weight: Tensor, geometry: Geometry) -> str:
    """The fastest backend that can run these tensors; says so once a name in the log."""
    if torch.jit.is_tracing() or _is_exporting():
        return 'aten'  # stock operators: what counts or deploys a graph knows them
    passed = []
    for name, backend in _BACKENDS.items():
        reason = backend.missing() or backend.refuses(input, weight, geometry)
        if reason is None:
            break
        passed.append(f'{name!r}: {reason}')
    if name not in _announced and not torch.compiler.is_compiling():
        _announced.add(name)
        note = f' ({"; ".join(passed)})' if passed else ''
        logging.getLogger('nc_plugins').info("backend 'auto' runs %r%s", name, note)
    return name
