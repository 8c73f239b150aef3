"""Where a convolution looks: kernel, stride, padding, dilation, groups; checked at the door."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Geometry(NamedTuple):
    """Sizes and steps of one convolution, one entry a spatial axis, in input pixels.

    ``pads`` holds (left, right) zeros of each axis; the two differ only for ``padding='same'`` with
    an even dilated kernel. For a transposed convolution the words mean what torch means by them:
    ``pads`` is cropped from the full output and ``output_padding`` added to its right.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int
    transposed: bool = False
    output_padding: tuple[int, ...] = ()

    @property
    def ndim(self) -> int:
        return len(self.kernel)

    @property
    def taps(self) -> int:
        """Pixels under one kernel, K = kh * kw."""
        return math.prod(self.kernel)

    @property
    def tap_dims(self) -> tuple[int, ...]:
        """Axes of a grouped weight (see :func:`group_weight`) that one output channel sums over."""
        spatial = tuple(range(3, 3 + self.ndim))
        return (1, *spatial) if self.transposed else (2, *spatial)

    def output_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Spatial size of the output for an input of spatial size ``size``."""
        out = []
        for axis, n in enumerate(size):
            k, s, d = self.kernel[axis], self.stride[axis], self.dilation[axis]
            left, right = self.pads[axis]
            if self.transposed:
                out.append((n - 1) * s - left - right + d * (k - 1) + self.output_padding[axis] + 1)
            else:
                out.append((n + left + right - d * (k - 1) - 1) // s + 1)
        return tuple(out)


def group_channels(x: Tensor, groups: int) -> Tensor:
    """View [N, C, ...] as [N, groups, C/groups, ...]."""
    if groups == 1:
        return x.unsqueeze(1)  # the same view, at a third of the price: it counts on small maps
    return x.unflatten(1, (groups, x.shape[1] // groups))


def group_weight(weight: Tensor, geometry: Geometry) -> Tensor:
    """View a weight as [groups, O/groups, C/groups, *k], or [groups, C/groups, O/groups, *k] if
    transposed: torch stores the input channels of a transposed convolution first."""
    if geometry.groups == 1:
        return weight.unsqueeze(0)
    return weight.unflatten(0, (geometry.groups, weight.shape[0] // geometry.groups))


def autocasts(device: str) -> bool:
    """Whether autocast is on for a device; asked about 'meta', which has none, torch raises."""
    return device != 'meta' and torch.is_autocast_enabled(device)


def per_output(vector: Tensor, geometry: Geometry) -> Tensor:
    """Shape a vector [O] so that it multiplies a grouped weight filter by filter."""
    ones = (1,) * geometry.ndim
    vector = vector.unflatten(0, (geometry.groups, -1))
    middle = (1, vector.shape[1]) if geometry.transposed else (vector.shape[1], 1)
    return vector.reshape(geometry.groups, *middle, *ones)


def check(
    name: str,
    ndim: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gain: Tensor | None,
    stride: int | Sequence[int],
    padding: str | int | Sequence[int],
    dilation: int | Sequence[int],
    groups: int,
    eps: float,
    output_padding: int | Sequence[int] | None = None,
) -> Geometry:
    """Turn the arguments of a public operator into a :class:`Geometry`, or say what is wrong.

    Raises:
        TypeError: not tensors, not floating point, or dtypes that differ outside autocast.
        ValueError: ranks, channels, groups, steps or eps that do not fit, or patches of one value,
            whose variance is always zero.
    """
    transposed = output_padding is not None
    _check_dtypes(name, input=input, weight=weight, bias=bias, gain=gain)
    for label, tensor in (('input', input), ('weight', weight)):
        if tensor.dim() != ndim + 2:
            raise ValueError(
                f'{name}: {label} has shape {tuple(tensor.shape)}, wanted {ndim + 2} axes '
                f'({"[N, C, *size]" if label == "input" else "[channels, channels, *kernel]"})'
            )
    if not isinstance(groups, int) or groups < 1:
        raise ValueError(f'{name}: groups is {groups!r}, wanted an integer of at least 1')
    if not eps > 0:
        raise ValueError(f'{name}: eps is {eps!r}, wanted a number above 0')

    channels = weight.shape[0] if transposed else weight.shape[1] * groups
    outputs = weight.shape[1] * groups if transposed else weight.shape[0]
    if input.shape[1] != channels:
        raise ValueError(
            f'{name}: input has {input.shape[1]} channels, wanted {channels} '
            f'(weight {tuple(weight.shape)}, groups {groups})'
        )
    if channels % groups or outputs % groups:
        raise ValueError(
            f'{name}: groups is {groups}, wanted a divisor of {channels} input and {outputs} '
            f'output channels'
        )
    for label, tensor in (('bias', bias), ('gain', gain)):
        if tensor is not None and tensor.shape != (outputs,):
            came = tuple(tensor.shape)
            raise ValueError(f'{name}: {label} has shape {came}, wanted ({outputs},)')

    kernel = tuple(weight.shape[2:])
    stride = _steps(name, 'stride', stride, ndim, least=1)
    dilation = _steps(name, 'dilation', dilation, ndim, least=1)
    pads = _pads(name, padding, kernel, stride, dilation, transposed)
    extra = _steps(name, 'output_padding', output_padding, ndim, least=0) if transposed else ()
    geometry = Geometry(kernel, stride, pads, dilation, groups, transposed, extra)

    for axis in range(len(extra)):
        if extra[axis] >= max(stride[axis], dilation[axis]):
            raise ValueError(
                f'{name}: output_padding is {extra}, wanted less than stride or dilation'
            )
    size = geometry.output_size(input.shape[2:])
    if min(size) < 1:
        raise ValueError(
            f'{name}: output would have size {size}, wanted at least 1 along each axis (input '
            f'{tuple(input.shape[2:])}, kernel {kernel}, padding {padding}, dilation {dilation})'
        )
    values = channels // groups * _most_taps(geometry)
    if values < 2:
        raise ValueError(
            f'{name}: a patch holds {values} value, wanted at least 2 (channels/groups * kernel '
            f'area): the variance of one value is always 0'
        )
    return geometry


def _check_dtypes(name: str, **tensors: Tensor | None) -> None:
    given = {label: tensor for label, tensor in tensors.items() if tensor is not None}
    for label, tensor in given.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f'{name}: {label} is a {type(tensor).__name__}, wanted a Tensor')
        if not tensor.is_floating_point():
            raise TypeError(f'{name}: {label} has dtype {tensor.dtype}, wanted a floating one')
    dtypes = {label: tensor.dtype for label, tensor in given.items()}
    mixed = len(set(dtypes.values())) > 1
    if mixed and not autocasts(given['input'].device.type):
        came = ', '.join(f'{label} {dtype}' for label, dtype in dtypes.items())
        raise TypeError(f'{name}: dtypes differ ({came}), wanted one dtype outside autocast')


def _steps(name: str, label: str, value: int | Sequence[int], ndim: int, least: int) -> tuple:
    steps = (value,) * ndim if isinstance(value, int) else tuple(value)
    if len(steps) == 1:
        steps *= ndim
    if len(steps) != ndim or any(not isinstance(s, int) or s < least for s in steps):
        raise ValueError(
            f'{name}: {label} is {value!r}, wanted an integer or {ndim} of at least {least}'
        )
    return steps


def _pads(name, padding, kernel, stride, dilation, transposed) -> tuple[tuple[int, int], ...]:
    if not isinstance(padding, str):
        return tuple((p, p) for p in _steps(name, 'padding', padding, len(kernel), least=0))
    if transposed or padding not in ('same', 'valid'):
        wanted = 'integers' if transposed else "integers, 'same' or 'valid'"
        raise ValueError(f'{name}: padding is {padding!r}, wanted {wanted}')
    if padding == 'valid':
        return ((0, 0),) * len(kernel)
    if max(stride) > 1:
        raise ValueError(f"{name}: padding 'same' wants stride 1, stride is {stride}")
    # torch's rule: where the sum is odd, the extra zero goes to the right.
    totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    return tuple((total // 2, total - total // 2) for total in totals)


def _most_taps(geometry: Geometry) -> int:
    """The most pixels that one output position sees."""
    if not geometry.transposed:
        return geometry.taps
    # Tap t of a transposed kernel meets output o where (o + pad - t * dilation) divides by stride.
    period = (s // math.gcd(s, d) for s, d in zip(geometry.stride, geometry.dilation, strict=True))
    taps = [-(-k // p) for k, p in zip(geometry.kernel, period, strict=True)]
    return math.prod(taps)  # of a list: torch.compile does not trace it over a generator
