"""The sizes and steps of a convolution, and the shapes that follow from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Geometry(NamedTuple):
    """Kernel size and steps of one convolution, one entry per spatial axis, in pixels.

    ``pads`` holds (left, right) padding per axis. The two differ only for ``padding='same'`` with
    an even dilated kernel. A transposed convolution uses torch's meanings: ``pads`` is cropped from
    the full output, and ``output_padding`` is added to its right end.
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
        """Number of spatial axes."""
        return len(self.kernel)

    @property
    def taps(self) -> int:
        """Number of pixels under the kernel, K = kh * kw."""
        return math.prod(self.kernel)

    @property
    def tap_dims(self) -> tuple[int, ...]:
        """The axes of a grouped weight (see :func:`group_weight`) that form one filter."""
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

    def lifted(self) -> Geometry:
        """The geometry of a 1-d convolution seen as a 2-d convolution over images of height 1."""
        return Geometry(
            (1, *self.kernel),
            (1, *self.stride),
            ((0, 0), *self.pads),
            (1, *self.dilation),
            self.groups,
        )


def group_channels(x: Tensor, groups: int) -> Tensor:
    """View [N, C, ...] as [N, groups, C/groups, ...]."""
    if groups == 1:
        return x.unsqueeze(1)  # the same view as unflatten, at a third of its overhead
    return x.unflatten(1, (groups, x.shape[1] // groups))


def ungroup_channels(x: Tensor) -> Tensor:
    """View [N, groups, C/groups, ...] as [N, C, ...]."""
    return regular_strides(x.flatten(1, 2))


def regular_strides(x: Tensor) -> Tensor:
    """``x``, with the strides of a channels_last tensor if its first axis is 1 long and irregular.

    torch may give an axis of length 1 any stride, for example C to the batch axis after a view or
    after ``image.permute(2, 0, 1).unsqueeze(0)``. torch 2.11's convolution_backward misreads such
    tensors: the gradient of a channels_last weight is wrong, or it raises an error.
    """
    # In torch.compile and torch.export strides may be symbols, and the compiler lays out tensors.
    # A trace would keep the answer of this batch size.
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or x.shape[0] != 1:
        return x
    if x.stride(0) >= x.shape[1:].numel():
        return x
    pixels = x.movedim(1, -1)  # both reshapes are views if x is channels_last
    return pixels.flatten().unflatten(0, pixels.shape).movedim(-1, 1)


def group_weight(weight: Tensor, geometry: Geometry) -> Tensor:
    """View a weight as [groups, O/groups, C/groups, *kernel].

    The weight of a transposed convolution becomes [groups, C/groups, O/groups, *kernel], because
    torch stores its input channels first.
    """
    if geometry.groups == 1:
        return weight.unsqueeze(0)
    return weight.unflatten(0, (geometry.groups, weight.shape[0] // geometry.groups))


def per_output(vector: Tensor, geometry: Geometry) -> Tensor:
    """Reshape a vector [O] so that it multiplies a grouped weight filter by filter."""
    ones = (1,) * geometry.ndim
    vector = vector.unflatten(0, (geometry.groups, -1))
    middle = (1, vector.shape[1]) if geometry.transposed else (vector.shape[1], 1)
    return vector.reshape(geometry.groups, *middle, *ones)
