"""Convolutions that standardise every patch: nn.ConvNd with another operator."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import dispatch
from .half_swap import check_at_first_forward
from .join import applied_affine, tag_output, without_join

_WS_EPS = 1e-5  # added to the standard deviation of a filter, as in mmcv's ConvWS


class NormalizedConv:
    """What the four layers share. It comes before the torch class among their bases.

    The torch class stays a direct base of each layer, because mmengine matches the layer names of
    ``init_cfg`` with a class and its direct bases only.
    """

    _operator: str  # the name in nc_plugins.ops
    _joined = None  # the NCAffine whose gain and bias this layer applies, see join.py
    _expected_by = 0  # number of norms that check for its output in their first forward
    _swap_checked = False  # see half_swap.py

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
        names = ('auto', *dispatch.available_backends())
        if backend not in names:
            layer = type(self).__name__
            raise ValueError(f'{layer}: backend is {backend!r}, wanted one of {names}')
        super().__init__(*args, **kwargs)
        self.eps, self.center, self.scale = eps, center, scale
        self.affine, self.weight_standardize = affine, weight_standardize
        self.allow_bn, self.backend = allow_bn, backend
        if affine:
            like = {'device': self.weight.device, 'dtype': self.weight.dtype}
            self.own_gain = Gain(self.out_channels, **like)
            if self.bias is None:
                self.bias = nn.Parameter(self.weight.new_empty(self.out_channels))
            nn.init.zeros_(self.bias)
        self._check()
        check_at_first_forward(self)

    @property
    def gain(self) -> nn.Parameter | None:
        """The layer's own gain [O]; None without ``affine``."""
        return self.own_gain.weight if self.affine else None

    def _check(self) -> None:
        """Raise at construction the errors that the first forward would raise."""
        size = (d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel_size, strict=True))
        patch = self.weight.new_empty(1, self.in_channels, *size, device='meta')
        steps = (self.stride, 0, self.dilation, self.groups)
        extra = self.output_padding if self.transposed else None
        name, ndim = type(self).__name__, len(self.kernel_size)
        dispatch.check_eps(name, self.eps)
        dispatch.plan_geometry(name, ndim, patch, self.weight, None, None, *steps, extra)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if getattr(self, 'affine', False):
            nn.init.ones_(self.own_gain.weight)
            nn.init.zeros_(self.bias)

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, *rest) -> None:
        """Let the state dict of a plain convolution load. Gain and bias then keep their values."""
        if self.affine and prefix + 'gain' in state_dict:  # the name before version 0.1
            state_dict[prefix + 'own_gain.weight'] = state_dict.pop(prefix + 'gain')
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, *rest)
        if self.affine:
            if prefix + 'bias' in missing:
                missing.remove(prefix + 'bias')
            state_dict.setdefault(prefix + 'own_gain.weight', self.own_gain.weight.detach())

    def standardized_weight(self, weight: Tensor) -> Tensor:
        """Weight standardisation (arXiv 1903.10520) as in mmcv's ConvWS, over sqrt(fan-in)."""
        if not self.weight_standardize:
            return weight
        dims = [axis for axis in range(weight.dim()) if axis != (1 if self.transposed else 0)]
        if self.transposed and self.groups > 1:
            grouped = weight.unflatten(0, (self.groups, -1))
            dims = [1, *range(3, grouped.dim())]
            return standardize_filters(grouped, dims).flatten(0, 1)
        return standardize_filters(weight, dims)

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
        if mode:
            check_at_first_forward(self)
        return super().train(mode)

    def _replicate_for_data_parallel(self):
        return without_join(super()._replicate_for_data_parallel())

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        input, padding = pad(self, input)
        return self._call(input, weight, bias, padding)

    def _call(self, input, weight, bias, padding, output_padding=None) -> Tensor:
        gain = self.gain
        if self._joined is not None:
            gain, bias = applied_affine(self._joined, bias)
        out = dispatch.normalized_convolution(
            self._operator, len(self.kernel_size), input, self.standardized_weight(weight), bias,
            gain, self.stride, padding, self.dilation, self.groups, output_padding, self.eps,
            self.center, self.scale, self.backend,
        )  # fmt: skip
        if self._joined is not None or self._expected_by:
            tag_output(self, out)
        return out


class Gain(nn.GroupNorm):
    """Holds the gain of a layer with ``affine=True``.

    It is a norm by class, so that mmengine's ``norm_decay_mult`` covers the gain.
    """

    def __init__(self, channels: int, **factory) -> None:
        super().__init__(1, channels, **factory)
        self.bias = None

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)

    def extra_repr(self) -> str:
        return str(self.num_channels)


def pad(layer, input: Tensor) -> tuple[Tensor, str | tuple[int, ...]]:
    """Apply the padding modes that the operator does not have; the padding that is left."""
    if layer.padding_mode == 'zeros':
        return input, layer.padding
    return F.pad(input, layer._reversed_padding_repeated_twice, mode=layer.padding_mode), 0


def standardize_filters(weight: Tensor, dims: list[int]) -> Tensor:
    centered = weight - weight.mean(dims, keepdim=True)
    std = weight.std(dims, keepdim=True)
    # I standardised taps on standardised patches give outputs of size sqrt(I), and no GroupNorm
    # behind the layer takes that factor back: without the division ResNet-18 stays at chance.
    fan_in = math.prod(weight.shape[axis] for axis in dims)
    return centered / ((std + _WS_EPS) * math.sqrt(fan_in))


class SamePadding:
    """Pads as TensorFlow's 'same': output size = ceil(input size / stride)."""

    def forward(self, input: Tensor) -> Tensor:
        amounts = []
        for axis in (1, 0):  # F.pad begins with the last axis
            size, stride = input.shape[2 + axis], self.stride[axis]
            reach = self.dilation[axis] * (self.kernel_size[axis] - 1) + 1
            total = max((-(size // -stride) - 1) * stride + reach - size, 0)
            amounts += [total // 2, total - total // 2]
        return super().forward(F.pad(input, amounts))


class NCConv1d(NormalizedConv, nn.Conv1d):
    """:class:`NCConv2d` over [N, C, L]."""

    _operator = 'nc_conv1d'


class NCConv2d(NormalizedConv, nn.Conv2d):
    """nn.Conv2d that standardises every patch before the dot product (arXiv 2005.05274).

    Takes all arguments of nn.Conv2d with their meaning. The state dict of a plain convolution
    loads. Shapes: [N, C, H, W] -> [N, O, H', W']; the batch axis is required.

    Args:
        eps: added to the variance of a patch, in squared units of the input.
        center: subtract the mean of the patch.
        scale: divide by the standard deviation of the patch.
        affine: give the layer its own gain and bias, which start at 1 and 0. It then needs no norm
            slot. ``bias`` is ignored.
        weight_standardize: standardise each filter too ("WS+NC"), as mmcv's ConvWS does, and divide
            it by the square root of its fan-in, because no norm behind NC takes that scale back.
        allow_bn: allow BatchNorm behind the layer. Otherwise that is an error in the first training
            forward, because it is usually an edit that was made by half.
        backend: 'auto' or one of :func:`nc_plugins.ops.available_backends`.

    Raises:
        ValueError: in_channels/groups * kernel area is 1 (the variance of one value is always 0),
            eps <= 0, an unknown backend, or an argument that nn.Conv2d refuses.

    Example::

        layer = NCConv2d(64, 128, 3, padding=1, affine=True)
        out = layer(torch.randn(2, 64, 56, 56))  # [2, 128, 56, 56]
    """

    _operator = 'nc_conv2d'


class NCConv2dSame(SamePadding, NCConv2d):
    """NCConv2d with the padding 'same' of TensorFlow."""


class NCConv3d(NormalizedConv, nn.Conv3d):
    """:class:`NCConv2d` over [N, C, D, H, W]."""

    _operator = 'nc_conv3d'


class NCConvTranspose2d(NormalizedConv, nn.ConvTranspose2d):
    """nn.ConvTranspose2d that standardises the values each output position receives.

    Takes the arguments of nn.ConvTranspose2d, then those of :class:`NCConv2d`. Statistics are over
    the input values that reach a position, not over the zeros that a stride inserts.
    """

    _operator = 'nc_conv_transpose2d'

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        extra = self.output_padding
        if output_size is not None:
            extra = self._output_padding(
                input, output_size, self.stride, self.padding, self.kernel_size, 2, self.dilation
            )
        return self._call(input, self.weight, self.bias, self.padding, tuple(extra))
