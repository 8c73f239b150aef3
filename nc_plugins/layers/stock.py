"""An NC layer for export: few stock operators, chosen for the speed of an inference runtime.

With the notation of docs/math.md (k the deployed weight, m the mean of a pixel over its channels,
I the number of values in a patch):

    NC(x) = (conv(x - m, k) + conv(m, sum_c k)) / sqrt(var + eps) + bias
    var   = sum_taps (m - mean(p))^2 / K + box(sum_c (x - m)^2) / I

Both convolutions of m have one input channel. The offsets m - mean(p) of the K taps are also one
convolution, with constant kernels, and so is the box sum, whose bias is eps. No operator depends on
the size of the image, so the graph has no shape arithmetic.

Nothing here cancels: the variance is taken about the mean, and conv(x - m, k) sums small values.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.precision import cast, input_scale, upcast
from .conv import pad
from .deployed import DeployedConv

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}

# In float32, a kernel of at most this many values multiplies the input itself. The sums are short
# there, so the error of a large mean stays near that of the definition. It matters for the first
# layer: with 3 channels, the convolution of m would cost a third of the whole.
_SHORT_SUM = 256


def use_stock_operators(model: nn.Module) -> None:
    """Change the layers of a deployed model in place to :class:`StockConv`.

    Transposed convolutions, groups, and layers that do not centre or scale stay. Their export is
    correct too, by the operators of ops/aten.py, but has more nodes.
    """
    for layer in list(model.modules()):
        if type(layer) is DeployedConv and not (layer.transposed or layer.groups > 1):
            if layer.center and layer.scale:
                _add_constants(layer)
                layer.__class__ = StockConv


def _add_constants(layer: DeployedConv) -> None:
    kernel, taps = layer.kernel_size, math.prod(layer.kernel_size)
    like = {'dtype': upcast(layer.folded_weight).dtype, 'device': layer.folded_weight.device}
    box = torch.full((1, 1, *kernel), 1 / (taps * layer.in_channels), **like)
    layer.register_buffer('box_kernel', box)
    layer.register_buffer('box_bias', torch.tensor([layer.eps], **like))
    offsets = sums = None
    if taps > 1:
        offsets = (torch.eye(taps, **like) - 1 / taps) / math.sqrt(taps)
        offsets = offsets.reshape(taps, 1, *kernel)
        values = taps * layer.in_channels
        if layer.folded_weight.dtype.itemsize < 4 or values > _SHORT_SUM:
            sums = upcast(layer.channel_sums).reshape(-1, 1, *kernel)
    layer.register_buffer('offset_kernels', offsets)
    layer.register_buffer('mean_kernel', sums)


class StockConv(DeployedConv):
    """A deployed layer that :func:`use_stock_operators` has changed."""

    def forward(self, input: Tensor) -> Tensor:
        dtype = input.dtype
        padded, padding = pad(self, input)
        x = upcast(padded)
        mean = x.mean(1, keepdim=True)
        centered = x - mean
        var = self._convolve(_sum_of_squares(centered), self.box_kernel, padding, self.box_bias)
        if self.offset_kernels is not None:
            var = var + _sum_of_squares(self._convolve(mean, self.offset_kernels, padding))
        if self.mean_kernel is None and self.offset_kernels is not None:
            out = self._convolve(x, self.folded_weight, padding)
        else:
            scale = input_scale(dtype)
            centered = centered * scale if scale != 1 else centered
            out = self._convolve(cast(centered, dtype), self.folded_weight, padding)
            out = upcast(out) / scale if scale != 1 else upcast(out)
        if self.mean_kernel is not None:
            out = out + self._convolve(mean, self.mean_kernel, padding)
        out = out / var.sqrt()
        if self.bias is not None:
            out = out + upcast(self.bias).reshape(-1, *[1] * len(self.kernel_size))
        return cast(out, dtype)

    def _convolve(self, x: Tensor, weight: Tensor, padding, bias: Tensor | None = None) -> Tensor:
        convolution = _CONVOLUTIONS[len(self.kernel_size)]
        return convolution(x, weight, bias, self.stride, padding, self.dilation)


def _sum_of_squares(x: Tensor) -> Tensor:
    return x.square().sum(1, keepdim=True)
