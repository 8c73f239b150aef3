"""Convolutions that standardise every patch: nn.ConvNd with one method replaced."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Parameter

from .. import ops
from ..ops.aten import output_dtype
from ..ops.geometry import Geometry, autocasts, check
from ..ops.nc_conv import backend_for
from .folded import Folded, can_fold
from .half_swap import mark
from .pair import Habit, Pending, defer, defers, made

_WS_EPS = 1e-5  # added to the standard deviation of a filter, as in mmcv's ConvWS


class _NCConv:
    """What the four layers share; comes before the torch class among the bases.

    The torch class stays a direct base of each layer: mmengine matches ``init_cfg`` layer names
    with a class and its direct bases only.
    """

    def __init__(
        self,
        *args,
        eps: float = 1e-5,
        center: bool = True,
        scale: bool = True,
        affine: bool = False,
        weight_standardize: bool = False,
        allow_bn: bool = False,
        backend: str = 'auto',
        **kwargs,
    ) -> None:
        names = ('auto', *ops.available_backends())
        if backend not in names:
            layer = type(self).__name__
            raise ValueError(f'{layer}: backend is {backend!r}, wanted one of {names}')
        super().__init__(*args, **kwargs)
        self.eps, self.center, self.scale = eps, center, scale
        self.affine, self.weight_standardize = affine, weight_standardize
        self.allow_bn, self.backend = allow_bn, backend
        self.habit, self.folded = Habit(), Folded()
        like = {'device': self.weight.device, 'dtype': self.weight.dtype}
        self.register_parameter('gain', None)
        if affine:
            self.gain = Parameter(torch.ones(self.out_channels, **like))
            self.bias = Parameter(torch.zeros(self.out_channels, **like))
        self._check()

    def _check(self) -> None:
        """Let the operator refuse at construction what it would refuse in the first forward."""
        size = (d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel_size, strict=True))
        patch = self.weight.new_empty(1, self.in_channels, *size, device='meta')
        extra = self.output_padding if self.transposed else None
        self._geometry(patch, self.weight, None, 0 if self.transposed else 'valid', extra)

    def _geometry(self, input, weight, bias, padding, output_padding=None, cached=False):
        """The checked :class:`Geometry` and the shape of the output."""
        steps = (self.stride, padding, self.dilation, self.groups, self.eps, output_padding)
        name, ndim = type(self).__name__, len(self.kernel_size)
        tensors = (input, weight, bias, self.gain)
        if cached and _alike(tensors):
            return _plan(name, ndim, tuple(None if t is None else t.shape for t in tensors), *steps)
        geometry = check(name, ndim, *tensors, *steps)
        return geometry, _output_shape(input.shape, self.out_channels, geometry)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if getattr(self, 'gain', None) is not None:
            nn.init.ones_(self.gain)
            nn.init.zeros_(self.bias)

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, *rest) -> None:
        """A plain convolution's state dict loads: gain, and bias beside it, keep their start."""
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, *rest)
        if self.affine:
            for name in ('gain', 'bias'):
                if prefix + name in missing:
                    missing.remove(prefix + name)

    def _standardized_weight(self, weight: Tensor) -> Tensor:
        """Weight standardisation (arXiv 1903.10520) as in mmcv's ConvWS, over sqrt(fan-in)."""
        if not self.weight_standardize:
            return weight
        dims = [axis for axis in range(weight.dim()) if axis != (1 if self.transposed else 0)]
        if self.transposed and self.groups > 1:
            grouped = weight.unflatten(0, (self.groups, -1))
            dims = [1, *range(3, grouped.dim())]
            return _standardize(grouped, dims).flatten(0, 1)
        return _standardize(weight, dims)

    def extra_repr(self) -> str:
        text = f'{super().extra_repr()}, eps={self.eps}'
        for name, usual in (
            ('center', True),
            ('scale', True),
            ('affine', False),
            ('weight_standardize', False),
            ('allow_bn', False),
            ('backend', 'auto'),
        ):
            value = getattr(self, name)
            if value != usual:
                text += f', {name}={value}'
        return text

    def train(self, mode: bool = True):
        self.folded.clear()  # EMA exchanges weights past their version counters, then calls this
        return super().train(mode)

    def _apply(self, *args, **kwargs):
        self.folded.clear()
        return super()._apply(*args, **kwargs)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding = self.padding
        if self.padding_mode != 'zeros':
            input = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = 0
        return self._call(input, weight, bias, padding)

    def _call(self, input, weight, bias, padding, output_padding=None) -> Tensor:
        if isinstance(input, Pending):
            input = input.tensor()
        eager = _is_eager(input)
        geometry, shape = self._geometry(input, weight, bias, padding, output_padding, eager)
        if eager and defers(self, input, weight):
            out = defer(self, input, weight, bias, geometry, shape, output_dtype(input))
        else:
            out = self._run(input, weight, bias, self.gain, geometry, eager)
            if eager:
                made(self, out)
        return mark(self, out)

    def _run(self, input, weight, bias, gain, geometry: Geometry, eager: bool = True) -> Tensor:
        """The operator, with a gain that need not be the layer's own."""
        backend = backend_for(self.backend, input, weight, geometry)
        options = (geometry, self.eps, self.center, self.scale)
        if eager and not self.training and can_fold(backend, input, weight, bias, gain):
            folded = self.folded.get(
                (weight, gain),
                (backend, geometry, self.center, output_dtype(input)),
                lambda weight, gain, backend, *options: backend.fold(
                    self._standardized_weight(weight), gain, *options
                ),
            )
            return backend.nc_conv(input, weight, bias, gain, *options, folded)
        return backend.nc_conv(input, self._standardized_weight(weight), bias, gain, *options)


def _is_eager(input: Tensor) -> bool:
    """Whether this is a plain call: not compiled, exported, traced, nor with fake tensors."""
    return type(input) in (Tensor, Parameter) and not (
        torch.compiler.is_compiling() or torch.jit.is_tracing()
    )


def _alike(tensors) -> bool:
    """Whether dtypes need no check: one floating dtype, or several under autocast."""
    given = [t for t in tensors if t is not None]
    dtype = given[0].dtype
    return dtype.is_floating_point and (
        all(t.dtype is dtype for t in given)
        or (autocasts(given[0].device.type) and all(t.dtype.is_floating_point for t in given))
    )


@lru_cache(maxsize=4096)
def _plan(name: str, ndim: int, shapes, *steps) -> tuple[Geometry, tuple[int, ...]]:
    """What :func:`check` says of tensors with these shapes; it takes longer than small kernels."""
    tensors = [None if shape is None else torch.empty(shape, device='meta') for shape in shapes]
    geometry = check(name, ndim, *tensors, *steps)
    outputs = shapes[1][1] * geometry.groups if geometry.transposed else shapes[1][0]
    return geometry, _output_shape(shapes[0], outputs, geometry)


def _output_shape(input: torch.Size, outputs: int, geometry: Geometry) -> tuple[int, ...]:
    return (input[0], outputs, *geometry.output_size(input[2:]))


def _standardize(weight: Tensor, dims: list[int]) -> Tensor:
    centered = weight - weight.mean(dims, keepdim=True)
    std = weight.std(dims, keepdim=True)
    # A filter of I standardised taps on standardised patches gives outputs of size sqrt(I), which
    # no GroupNorm takes back here: trained like that, ResNet-18 stays at chance.
    fan_in = math.prod(weight.shape[axis] for axis in dims)
    return centered / ((std + _WS_EPS) * math.sqrt(fan_in))


class NCConv1d(_NCConv, nn.Conv1d):
    """:class:`NCConv2d` over [N, C, L]."""


class NCConv2d(_NCConv, nn.Conv2d):
    """nn.Conv2d that standardises every patch before the dot product (arXiv 2005.05274).

    Takes all arguments of nn.Conv2d, with their meaning, and the state dict of a plain convolution
    loads. Shapes: [N, C, H, W] -> [N, O, H', W']; the batch axis is required.

    Args:
        eps: added to the variance of a patch, in squared units of the input.
        center: subtract the mean of the patch.
        scale: divide by the standard deviation of the patch.
        affine: the layer has a gain and a bias of its own (whatever ``bias`` says), starting at 1
            and 0, and needs no norm slot.
        weight_standardize: standardise each filter too ("WS+NC"), as mmcv's ConvWS does, and divide
            it by the square root of its fan-in: nothing after NC would take that scale back.
        allow_bn: BatchNorm may follow. Otherwise that is taken for half a swap, and is an error in
            the first training forward.
        backend: 'auto' or one of :func:`nc_plugins.ops.available_backends`.

    Raises:
        ValueError: in_channels/groups * kernel area is 1 (the variance of one value is always 0),
            eps <= 0, an unknown backend, or what nn.Conv2d refuses.
    """


class NCConv3d(_NCConv, nn.Conv3d):
    """:class:`NCConv2d` over [N, C, D, H, W]."""


class NCConvTranspose2d(_NCConv, nn.ConvTranspose2d):
    """nn.ConvTranspose2d that standardises what each output position receives.

    Arguments of nn.ConvTranspose2d, then those of :class:`NCConv2d`. Statistics are over the input
    values that reach a position, not over the zeros which a stride inserts.
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        output_padding = self.output_padding
        if output_size is not None:
            output_padding = self._output_padding(
                input, output_size, self.stride, self.padding, self.kernel_size, 2, self.dilation
            )
        return self._call(input, self.weight, self.bias, self.padding, tuple(output_padding))
