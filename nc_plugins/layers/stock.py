"""An NC layer for export: few stock operators, chosen for the speed of an inference runtime.

With k the deployed weight and m the mean of a pixel over its C channels:

    NC(x) = (conv(x - m, k) + conv(m, sum_c k)) / sqrt(var + eps) + bias

The variance of a patch starts from m and the variance v of each pixel over its channels. One step
goes from pixels to windows of pixels:

    v <- box mean of v + mean over the taps of (m - box mean of m)^2,    m <- box mean of m

A small kernel takes one step. A large kernel takes one step along each axis, with kh + kw maps
instead of kh * kw. The offsets m - box mean of m of all taps are one convolution with constant
kernels, which sum to zero. Convolutions of m and v have one input channel.

No operator depends on the size of the image, so the graph has no shape arithmetic. No two large
numbers cancel: the variance is taken about the mean, and conv(x - m, k) sums small values.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.arguments import make_geometry
from ..ops.precision import cast, input_scale, upcast
from .conv import pad
from .deployed import DeployedConv
from .join import tag_output

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_SMALL_KERNEL = 9  # taps


def use_stock_operators(model: nn.Module) -> None:
    """Change the layers of a deployed model in place to :class:`StockConv`.

    Transposed convolutions, groups, and layers that do not centre or scale stay. Their export is
    correct too, by the operators of ops/aten.py, but has more nodes.
    """
    for layer in list(model.modules()):
        plain = type(layer) is DeployedConv and not layer.transposed and layer.groups == 1
        if plain and layer.center and layer.scale:
            _add_constants(layer)
            layer.__class__ = StockConv


def _add_constants(layer: DeployedConv) -> None:
    weight, channels, kernel = layer.folded_weight, layer.in_channels, layer.kernel_size
    like = {'dtype': upcast(weight).dtype, 'device': weight.device}
    layer.zero_pads = _zero_pads(layer)
    layer.window_steps = _window_steps(kernel)
    for index, step in enumerate(layer.window_steps):
        taps = math.prod(step)
        box = torch.full((1, 1, *step), 1 / taps, **like)
        if index + 1 < len(layer.window_steps):
            layer.register_buffer(f'mean_box{index}', box)
        # The first step takes sums of squares over the channels.
        layer.register_buffer(f'variance_box{index}', box if index else box / channels)
        if taps > 1:
            offsets = (torch.eye(taps, **like) - 1 / taps) / math.sqrt(taps)
            layer.register_buffer(f'offsets{index}', offsets.reshape(taps, 1, *step))
    layer.register_buffer('variance_bias', torch.tensor([layer.eps], **like))
    if layer.channel_sums is not None:
        sums = layer.channel_sums.double().flatten(0, 1)
        sums = sums - sums.mean(1, keepdim=True)  # the rest of the mean of a rounded weight
        layer.register_buffer('mean_kernel', sums.to(**like).reshape(-1, 1, *kernel))


def _zero_pads(layer: DeployedConv) -> tuple[tuple[int, int], ...]:
    """Zeros to the left and right of each axis."""
    size = [d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    padding = layer.padding if layer.padding_mode == 'zeros' else 0
    return make_geometry(
        'export', len(size), (1, layer.in_channels, *size), layer.folded_weight.shape, None, None,
        layer.stride, padding, layer.dilation, 1,
    ).pads  # fmt: skip


def _window_steps(kernel: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The kernels whose windows are taken one after the other. Together they are ``kernel``."""
    if math.prod(kernel) <= _SMALL_KERNEL:
        return [kernel]
    axes = range(len(kernel))
    return [tuple(kernel[a] if a == axis else 1 for a in axes) for axis in axes]


class StockConv(DeployedConv):
    """A deployed layer that :func:`use_stock_operators` has changed."""

    def forward(self, input: Tensor) -> Tensor:
        dtype, scale = input.dtype, input_scale(input.dtype)
        x, _ = pad(self, input)
        x = upcast(x)
        pads = [left for left, _ in self.zero_pads]
        if any(left != right for left, right in self.zero_pads):
            x = F.pad(x, [n for both in reversed(self.zero_pads) for n in both])
            pads = [0] * len(pads)
        steps = (self.stride, pads, self.dilation)
        mean = x.mean(1, keepdim=True)
        centered = x - mean
        var = self._variance(mean, centered, *steps)
        if scale != 1:
            centered = centered * scale
        out = self._convolve(cast(centered, dtype), self.folded_weight, None, *steps)
        out = upcast(out) / scale if scale != 1 else upcast(out)
        if self.channel_sums is not None:
            out = out + self._convolve(mean, self.mean_kernel, None, *steps)
        out = out / var.sqrt()
        if self.bias is not None:
            out = out + upcast(self.bias).reshape(-1, *[1] * len(self.kernel_size))
        out = cast(out, dtype)
        if self._joined is not None:
            tag_output(self, out)
        return out

    def _variance(self, mean: Tensor, centered: Tensor, stride, pads, dilation) -> Tensor:
        """Variance of each patch, plus eps: [N, 1, *L]."""
        var, count = _sum_of_squares(centered), len(self.window_steps)
        for index in range(count):
            axes = range(len(stride)) if count == 1 else (index,)
            steps = (_along(axes, stride, 1), _along(axes, pads, 0), _along(axes, dilation, 1))
            offsets, last = getattr(self, f'offsets{index}', None), index == count - 1
            bias = self.variance_bias if last else None
            var = self._convolve(var, getattr(self, f'variance_box{index}'), bias, *steps)
            if offsets is not None:
                var = var + _sum_of_squares(self._convolve(mean, offsets, None, *steps))
            if not last:
                mean = self._convolve(mean, getattr(self, f'mean_box{index}'), None, *steps)
        return var

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None, *steps) -> Tensor:
        return _CONVOLUTIONS[len(self.kernel_size)](x, weight, bias, *steps)


def _along(axes, values, other: int) -> tuple[int, ...]:
    """``values`` along ``axes`` and ``other`` along the rest."""
    return tuple(value if axis in axes else other for axis, value in enumerate(values))


def _sum_of_squares(x: Tensor) -> Tensor:
    return x.square().sum(1, keepdim=True)
