"""Checks the arguments of the public operators and turns them into a :class:`Geometry`."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from numbers import Real

import torch
from torch import Tensor

from .geometry import Geometry
from .precision import autocast_enabled


def check_eps(name: str, eps: float) -> None:
    """Raise unless eps is a number above 0."""
    if not isinstance(eps, (float, int, Real)):
        raise TypeError(f'{name}: eps is {eps!r}, wanted a number above 0')
    if not eps > 0:
        raise ValueError(f'{name}: eps is {eps!r}, wanted a number above 0')


def check_tensors(
    name: str, input: Tensor, weight: Tensor, bias: Tensor | None, gain: Tensor | None
) -> None:
    """Check types, dtypes and devices.

    Input and weight have one floating dtype; bias and gain have the same one or float32. Under
    autocast any floating dtypes go together.

    Raises:
        TypeError: something is not a tensor, not floating point, or of another dtype.
        ValueError: two tensors are on different devices.
    """
    given = [('input', input), ('weight', weight)]
    if bias is not None:
        given.append(('bias', bias))
    if gain is not None:
        given.append(('gain', gain))
    for label, tensor in given:
        if not isinstance(tensor, Tensor):
            raise TypeError(f'{name}: {label} is a {type(tensor).__name__}, wanted a Tensor')
        if not tensor.dtype.is_floating_point:
            raise TypeError(
                f'{name}: {label} has dtype {tensor.dtype}, wanted a floating point dtype'
            )
    dtype, device = input.dtype, input.device
    for label, tensor in given[1:]:
        if tensor.device != device:
            raise ValueError(
                f'{name}: input is on {device} and {label} is on {tensor.device}, wanted one device'
            )
    for label, tensor in given[1:]:
        affine = label != 'weight' and dtype != torch.float64
        if (
            tensor.dtype != dtype
            and not (affine and tensor.dtype == torch.float32)
            and not autocast_enabled(device.type)
        ):
            came = ', '.join(f'{label} {tensor.dtype}' for label, tensor in given)
            raise TypeError(f'{name}: dtypes differ ({came}), wanted one dtype outside autocast')


def make_geometry(
    name: str,
    ndim: int,
    input: Sequence[int],
    weight: Sequence[int],
    bias: Sequence[int] | None,
    gain: Sequence[int] | None,
    stride: int | Sequence[int],
    padding: str | int | Sequence[int],
    dilation: int | Sequence[int],
    groups: int,
    output_padding: int | Sequence[int] | None = None,
) -> Geometry:
    """Check shapes and steps and return the :class:`Geometry`.

    Args:
        name: the operator, for error messages.
        ndim: number of spatial axes.
        input, weight, bias, gain: shapes, None for a tensor that is not given.
        output_padding: None for an ordinary convolution.

    Raises:
        TypeError: steps or groups are not integers.
        ValueError: shapes, groups or steps do not fit, or a patch holds one value, whose variance
            is always zero.
    """
    transposed = output_padding is not None
    for label, shape, axes in (
        ('input', input, '[N, C, *size]'),
        ('weight', weight, '[channels, channels, *kernel]'),
    ):
        if len(shape) != ndim + 2:
            raise ValueError(
                f'{name}: {label} has shape {tuple(shape)}, wanted {ndim + 2} axes ({axes})'
            )
    count = _integer(groups)
    if count is None:
        raise TypeError(f'{name}: groups is {groups!r}, wanted an integer')
    groups = count
    if groups < 1:
        raise ValueError(f'{name}: groups is {groups}, wanted an integer of at least 1')

    channels = weight[0] if transposed else weight[1] * groups
    outputs = weight[1] * groups if transposed else weight[0]
    if input[1] != channels:
        raise ValueError(
            f'{name}: input has {input[1]} channels, wanted {channels} '
            f'(weight {tuple(weight)}, groups {groups})'
        )
    if channels % groups or outputs % groups:
        raise ValueError(
            f'{name}: groups is {groups}, wanted a divisor of {channels} input and {outputs} '
            f'output channels'
        )
    for label, shape in (('bias', bias), ('gain', gain)):
        if shape is not None and tuple(shape) != (outputs,):
            raise ValueError(f'{name}: {label} has shape {tuple(shape)}, wanted ({outputs},)')

    kernel = tuple(weight[2:])
    stride = _steps(name, 'stride', stride, ndim, minimum=1)
    dilation = _steps(name, 'dilation', dilation, ndim, minimum=1)
    pads = _pads(name, padding, kernel, stride, dilation, transposed)
    extra = _steps(name, 'output_padding', output_padding, ndim, minimum=0) if transposed else ()
    geometry = Geometry(kernel, stride, pads, dilation, groups, transposed, extra)

    for axis in range(len(extra)):
        if extra[axis] >= max(stride[axis], dilation[axis]):
            raise ValueError(
                f'{name}: output_padding is {extra}, wanted less than stride or dilation'
            )
    size = geometry.output_size(input[2:])
    if any(n < 1 for n in size):
        raise ValueError(
            f'{name}: output would have size {size}, wanted at least 1 along each axis (input '
            f'{tuple(input[2:])}, kernel {kernel}, padding {padding}, dilation {dilation})'
        )
    values = channels // groups * max_taps(geometry)
    if values < 2:
        raise ValueError(
            f'{name}: a patch holds {values} value, wanted at least 2 (channels/groups * kernel '
            f'area): the variance of one value is always 0'
        )
    return geometry


def max_taps(geometry: Geometry) -> int:
    """The largest number of pixels that one output position receives."""
    if not geometry.transposed:
        return geometry.taps
    # Tap t of a transposed kernel contributes to output o where (o + pad - t * dilation) is a
    # multiple of the stride.
    period = (s // math.gcd(s, d) for s, d in zip(geometry.stride, geometry.dilation, strict=True))
    taps = [-(-k // p) for k, p in zip(geometry.kernel, period, strict=True)]
    return math.prod(taps)  # a list, because torch.compile does not trace prod over a generator


def _integer(value) -> int | None:
    """``value`` as an int, as torch takes it: Python and numpy integers, integer tensors."""
    if isinstance(value, int):
        return value
    if value is None or isinstance(value, (str, tuple, list)):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _steps(name: str, label: str, value, ndim: int, minimum: int) -> tuple[int, ...]:
    wanted = f'wanted an integer or {ndim} integers of at least {minimum}'
    if hasattr(value, 'tolist'):  # numpy integers and arrays
        value = value.tolist()
    if isinstance(value, (tuple, list)):
        steps = tuple([_integer(step) for step in value])
    else:
        steps = (_integer(value),)
    if None in steps:
        raise TypeError(f'{name}: {label} is {value!r}, {wanted}')
    if len(steps) == 1:
        steps *= ndim
    if len(steps) != ndim or any(step < minimum for step in steps):
        raise ValueError(f'{name}: {label} is {value!r}, {wanted}')
    return steps


def _pads(name, padding, kernel, stride, dilation, transposed) -> tuple[tuple[int, int], ...]:
    if not isinstance(padding, str):
        steps = _steps(name, 'padding', padding, len(kernel), minimum=0)
        return tuple((p, p) for p in steps)
    if transposed or padding not in ('same', 'valid'):
        wanted = 'integers' if transposed else "integers, 'same' or 'valid'"
        raise ValueError(f'{name}: padding is {padding!r}, wanted {wanted}')
    if padding == 'valid':
        return ((0, 0),) * len(kernel)
    if max(stride) > 1:
        raise ValueError(f"{name}: padding 'same' needs stride 1, stride is {stride}")
    # torch's rule: an odd total puts the extra zero on the right.
    totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    return tuple((total // 2, total - total // 2) for total in totals)
