"""The layers that convert() puts in where torch and nc_plugins.layers have none."""

from __future__ import annotations

import math

from torch import Tensor, nn

from ..layers import NCAffine, PositionalNorm
from ..layers.conv import SamePadding, standardize_filters
from ..layers.join import check_input
from ..layers.norm import WithActivation


class StandardizedWeight:
    """Weight standardisation (arXiv 1903.10520) for a convolution with a norm behind it."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        dims = list(range(1, weight.dim()))
        # mmcv's ConvWS. NCWS divides by sqrt(fan-in) too, because no norm behind it takes it back.
        weight = standardize_filters(weight, dims) * math.sqrt(weight[0].numel())
        return super()._conv_forward(input, weight, bias)


class ConvWS1d(StandardizedWeight, nn.Conv1d):
    """nn.Conv1d with weight standardisation."""


class ConvWS2d(StandardizedWeight, nn.Conv2d):
    """nn.Conv2d with weight standardisation."""


class ConvWS3d(StandardizedWeight, nn.Conv3d):
    """nn.Conv3d with weight standardisation."""


class ConvWS2dSame(SamePadding, ConvWS2d):
    """ConvWS2d with the padding 'same' of TensorFlow."""


class ChannelLayerNorm(nn.GroupNorm):
    """LayerNorm over the channels and positions of a sample: GroupNorm with one group."""


class NCNoAffine(NCAffine):
    """The place of a norm without weight and bias, behind a normalized convolution."""

    def forward(self, input: Tensor) -> Tensor:
        check_input(self, input)
        return input


class NCNoAffineAct(WithActivation, NCNoAffine):
    """NCNoAffine and an activation."""


class GroupNormAct(WithActivation, nn.GroupNorm):
    """nn.GroupNorm and an activation."""


class ChannelLayerNormAct(WithActivation, ChannelLayerNorm):
    """ChannelLayerNorm and an activation."""


class PositionalNormAct(WithActivation, PositionalNorm):
    """PositionalNorm and an activation."""


class BatchNormAct(WithActivation, nn.BatchNorm2d):
    """nn.BatchNorm2d and an activation."""


class InstanceNormAct(WithActivation, nn.InstanceNorm2d):
    """nn.InstanceNorm2d and an activation."""
