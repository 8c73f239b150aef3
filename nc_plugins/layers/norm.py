"""What stands in the norm slot: the affine of NC, and PositionalNorm to compare with.

Both subclass nn.GroupNorm directly, so that mmengine and mmcv treat them as norms (weight decay
rules, ``init_cfg`` layer names, ``is_norm``), all of which go by class.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .half_swap import require_mark
from .pair import Pending, learn


class NCAffine(nn.GroupNorm):
    """The affine after a normalized convolution: ``input * weight + bias``, one pair a channel.

    It normalises nothing itself, so in its first training forward it checks that an NC convolution
    made its input. Shapes: [N, C, ...] -> the same, in the input's dtype and memory format.

    Args:
        num_features: channels C.
        eps: taken because every norm layer is given one; unused, the convolution has its own.
        allow_plain: any input will do; no check.

    Raises:
        HalfSwapError: the input comes from something else than an NC convolution.
    """

    _abbr_ = 'nc'

    def __init__(
        self, num_features: int, eps: float = 1e-5, allow_plain: bool = False, **factory
    ) -> None:
        super().__init__(1, num_features, eps, **factory)
        self.allow_plain = allow_plain
        self._checked = False

    def forward(self, input: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            if self.training and not self._checked:
                if not self.allow_plain:
                    require_mark(self, input)
                self._checked = True
            if isinstance(input, Pending):
                out = input.affine(self)
                if out is not None:
                    return out
                input = input.tensor()
            else:
                learn(input)
        shape = _channel_shape(self, input)
        weight, bias = (p.to(input.dtype).reshape(shape) for p in (self.weight, self.bias))
        return torch.addcmul(bias, input, weight)

    def extra_repr(self) -> str:
        return f'{self.num_channels}' + (', allow_plain=True' if self.allow_plain else '')


class PositionalNorm(nn.GroupNorm):
    """Standardises each pixel over its channels, then an affine (arXiv 1907.04312).

    Shapes: [N, C, ...] -> the same. A 1x1 normalized convolution is PositionalNorm followed by a
    plain one; on larger kernels they differ.

    Args:
        num_features: channels C.
        eps: added to the variance, in squared units of the input.
    """

    _abbr_ = 'pn'

    def __init__(self, num_features: int, eps: float = 1e-5, **factory) -> None:
        super().__init__(1, num_features, eps, **factory)

    def forward(self, input: Tensor) -> Tensor:
        _channel_shape(self, input)
        out = F.layer_norm(
            input.movedim(1, -1), (self.num_channels,), self.weight, self.bias, self.eps
        )
        out = out.movedim(-1, 1)
        return out.contiguous() if input.is_contiguous() else out

    def extra_repr(self) -> str:
        return f'{self.num_channels}, eps={self.eps}'


def _channel_shape(norm: nn.GroupNorm, input: Tensor) -> tuple[int, ...]:
    if input.dim() < 2 or input.shape[1] != norm.num_channels:
        raise ValueError(
            f'{type(norm).__name__}: input has shape {tuple(input.shape)}, wanted '
            f'[N, {norm.num_channels}, ...]'
        )
    return (1, -1) + (1,) * (input.dim() - 2)
