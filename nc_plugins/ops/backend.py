"""The contract between the dispatcher and the modules that compute: aten.py, cpu.py, triton.py."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .geometry import Geometry, group_weight, per_output, regular_strides
from .precision import upcast


class Plan(NamedTuple):
    """Everything about one call but its tensors. All of it has been checked."""

    geometry: Geometry
    eps: float
    center: bool
    scale: bool
    dtype: torch.dtype  # of the output


class Needs(NamedTuple):
    """Which gradients a backward pass has to return."""

    input: bool
    weight: bool
    bias: bool
    gain: bool


class Folded(NamedTuple):
    """A weight that is ready for inference: centred, multiplied by the gain.

    ``channel_sums`` are the sums of ``weight`` over the channels of a group, [G, O/G, K]. They are
    None where no backend needs them: for 1x1 kernels and without centring.
    """

    weight: Tensor
    channel_sums: Tensor | None


class Backend(Protocol):
    """One implementation of the operator, a module of this package.

    The dispatcher turns autocast off, checks the arguments, and never calls ``forward`` or
    ``backward`` with a graph to record: :class:`~.autograd.NormalizedConvolution` does that.
    """

    def missing(self) -> str | None:
        """The reason why the backend cannot run on this machine; None if it can."""

    def refuses(self, input: Tensor, weight: Tensor, geometry: Geometry) -> str | None:
        """The reason why the backend cannot run with these tensors; None if it can."""

    def forward(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        gain: Tensor | None,
        plan: Plan,
        save: bool,
        folded: Folded | None = None,
    ) -> tuple[Tensor, ...]:
        """The output [N, O, *L] in ``plan.dtype``, then the tensors that backward needs.

        Without ``save`` there is no backward pass, and only the output counts.
        ``folded`` is what :func:`fold` makes of this weight and gain, where the caller keeps it. A
        backend that folds uses it instead of folding again.
        """

    def backward(
        self,
        grad: Tensor,
        input: Tensor,
        weight: Tensor,
        gain: Tensor | None,
        saved: tuple[Tensor, ...],
        needs: Needs,
        plan: Plan,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
        """Gradients of input, weight, bias and gain, in any floating dtype.

        ``saved`` are the tensors that ``forward`` returned after the output.
        """


def centered(weight: Tensor, geometry: Geometry, center: bool) -> Tensor:
    """Each filter minus its mean. Such a filter ignores a constant that is added to the patch."""
    if not center:
        return weight
    filters = group_weight(weight, geometry)
    return (filters - filters.mean(geometry.tap_dims, keepdim=True)).flatten(0, 1)


def fold(weight: Tensor, gain: Tensor | None, geometry: Geometry, center: bool) -> Folded:
    """Centre a weight and multiply it by the gain, in float32 at least."""
    weight = centered(upcast(weight), geometry, center)
    if gain is not None:
        weight = (group_weight(weight, geometry) * per_output(gain, geometry)).flatten(0, 1)
    weight = regular_strides(weight)
    sums = sum_over_channels(weight, geometry) if center and geometry.taps > 1 else None
    return Folded(weight, sums)


def sum_over_channels(weight: Tensor, geometry: Geometry) -> Tensor:
    """Sums of a weight over the channels of a group, [G, O/G, K].

    The K taps have the order of :func:`~.statistics.windows`, in which a transposed convolution
    sees its kernel flipped.
    """
    filters = group_weight(weight, geometry)
    if geometry.transposed:
        return filters.sum(1).flatten(2).flip(2)
    return filters.sum(2).flatten(2)


def bias_gradient(grad: Tensor) -> Tensor:
    """Sum over all axes but the channels, in float32 at least."""
    dtype = torch.float64 if grad.dtype == torch.float64 else torch.float32
    return grad.sum([axis for axis in range(grad.dim()) if axis != 1], dtype=dtype)
