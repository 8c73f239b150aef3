"""Layers for the norm slot: the affine of NC, and PositionalNorm for comparison.

Both subclass nn.GroupNorm directly. mmengine and mmcv decide by class whether a module is a norm
(weight decay rules, ``init_cfg`` layer names, ``is_norm``).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

from .half_swap import check_at_first_forward
from .join import check_input, without_join


class NCAffine(nn.GroupNorm):
    """The affine after a normalized convolution: ``input * weight + bias`` per channel.

    It normalises nothing itself. The first training forward of the model checks that a normalized
    convolution comes before it. Gain and bias are applied in float32 under autocast too.
    Shapes: [N, C, ...] -> [N, C, ...], in the input's dtype and memory format.

    Joined with its convolution (:func:`join_affines`) it returns its input.

    Args:
        num_features: channels C.
        eps: unused. Every norm layer of mmcv is given one; the convolution has its own.
        allow_plain: allow a convolution that is not NC before the layer.
    """

    _abbr_ = 'nc'
    _joined = None  # the convolution that applies this affine, see join.py
    _expects = None  # the convolutions before it, until the first forward, see join.py
    _swap_checked = False  # see half_swap.py

    def __init__(
        self, num_features: int, eps: float = 1e-5, allow_plain: bool = False, **factory
    ) -> None:
        super().__init__(1, num_features, eps, **factory)
        self.allow_plain = allow_plain
        check_at_first_forward(self)

    def train(self, mode: bool = True):
        if mode:
            check_at_first_forward(self)
        return super().train(mode)

    def forward(self, input: Tensor) -> Tensor:
        check_input(self, input)
        if self._joined is not None:
            return input
        return channel_affine(input, self.weight, self.bias)

    def _replicate_for_data_parallel(self):
        return without_join(super()._replicate_for_data_parallel())

    def extra_repr(self) -> str:
        return f'{self.num_channels}' + (', allow_plain=True' if self.allow_plain else '')


class WithActivation:
    """A norm that also runs ``drop`` and ``act``, as timm's BatchNormAct2d."""

    def forward(self, input: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(input)))


class NCAffineAct(WithActivation, NCAffine):
    """NCAffine and an activation."""


class PositionalNorm(nn.GroupNorm):
    """Standardises each pixel over its channels, then applies an affine (arXiv 1907.04312).

    Shapes: [N, C, ...] -> [N, C, ...]. A 1x1 normalized convolution equals PositionalNorm followed
    by a plain convolution. On larger kernels they differ.

    Args:
        num_features: channels C.
        eps: added to the variance, in squared units of the input.
    """

    _abbr_ = 'pn'

    def __init__(self, num_features: int, eps: float = 1e-5, **factory) -> None:
        super().__init__(1, num_features, eps, **factory)

    def forward(self, input: Tensor) -> Tensor:
        return positional_norm(input, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f'{self.num_channels}, eps={self.eps}'


def channel_affine(input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``input * weight + bias`` with one weight and bias per channel. torch.fx records one call."""
    if has_torch_function((input, weight, bias)):
        return handle_torch_function(channel_affine, (input, weight, bias), input, weight, bias)
    _check_channels('NCAffine', input, weight)
    shape = (1, -1) + (1,) * (input.dim() - 2)
    return torch.addcmul(bias.reshape(shape), input, weight.reshape(shape)).to(input.dtype)


def positional_norm(input: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Layer norm of each pixel over its channels. torch.fx records one call."""
    if has_torch_function((input, weight, bias)):
        tensors = (input, weight, bias)
        return handle_torch_function(positional_norm, tensors, *tensors, eps)
    _check_channels('PositionalNorm', input, weight)
    out = F.layer_norm(input.movedim(1, -1), weight.shape, weight, bias, eps).movedim(-1, 1)
    return out.contiguous() if input.is_contiguous() else out


def _check_channels(name: str, input: Tensor, weight: Tensor) -> None:
    if torch.jit.is_tracing():  # sizes are tensors
        return
    if input.dim() < 2 or input.shape[1] != weight.shape[0]:
        raise ValueError(
            f'{name}: input has shape {tuple(input.shape)}, wanted [N, {weight.shape[0]}, ...]'
        )
