"""Normalized convolution as its definition reads: the text that every other backend answers to.

Source: "Normalized Convolutional Neural Network", arXiv 2005.05274, Sec. 2.1 to 2.4. For every
output position k and group, let p be the row of the im2col matrix: the I = C/groups * kh * kw input
values under the kernel, zero padding included. Then

    phat[i] = (p[i] - mean(p)) / sqrt(var(p) + eps)                           (the paper's Eq. 2)
    out[o, k] = gain[o] * sum_i weight[o, i] * phat[i] + bias[o]              (Eq. 3, affine)

with the biased variance (divide by I). The paper's Eq. (2) prints sigma + eps and its listing
sqrt(var + eps); this is the listing's form. A transposed convolution standardises over the input
values that a position really receives, not over the zeros which a stride inserts.

Written to be read: it builds the whole im2col matrix and is never optimised.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .geometry import Geometry, check, group_channels, group_weight


def nc_conv1d(
    input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, *, gain=None, eps=1e-5,
    center=True, scale=True,
) -> Tensor:  # fmt: skip
    """The definition over [N, C, L]; arguments as :func:`nc_plugins.ops.nc_conv1d`."""
    steps = (stride, padding, dilation, groups, eps)
    geometry = check('nc_conv1d', 1, input, weight, bias, gain, *steps)
    return nc_conv(input, weight, bias, gain, geometry, eps, center, scale)


def nc_conv2d(
    input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, *, gain=None, eps=1e-5,
    center=True, scale=True,
) -> Tensor:  # fmt: skip
    """The definition over [N, C, H, W]; arguments as :func:`nc_plugins.ops.nc_conv2d`."""
    steps = (stride, padding, dilation, groups, eps)
    geometry = check('nc_conv2d', 2, input, weight, bias, gain, *steps)
    return nc_conv(input, weight, bias, gain, geometry, eps, center, scale)


def nc_conv3d(
    input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, *, gain=None, eps=1e-5,
    center=True, scale=True,
) -> Tensor:  # fmt: skip
    """The definition over [N, C, D, H, W]; arguments as :func:`nc_plugins.ops.nc_conv3d`."""
    steps = (stride, padding, dilation, groups, eps)
    geometry = check('nc_conv3d', 3, input, weight, bias, gain, *steps)
    return nc_conv(input, weight, bias, gain, geometry, eps, center, scale)


def nc_conv_transpose2d(
    input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1, *,
    gain=None, eps=1e-5, center=True, scale=True,
) -> Tensor:  # fmt: skip
    """The definition, transposed; arguments as :func:`nc_plugins.ops.nc_conv_transpose2d`."""
    steps = (stride, padding, dilation, groups, eps, output_padding)
    geometry = check('nc_conv_transpose2d', 2, input, weight, bias, gain, *steps)
    return nc_conv(input, weight, bias, gain, geometry, eps, center, scale)


def missing() -> None:
    """Runs wherever torch does,"""


def refuses(input: Tensor, weight: Tensor, geometry: Geometry) -> None:
    """on any tensors."""


def nc_conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gain: Tensor | None,
    geometry: Geometry,
    eps: float,
    center: bool,
    scale: bool,
) -> Tensor:
    """The definition for a checked geometry. [N, C, *S] -> [N, O, *L]."""
    if geometry.transposed:
        patches, seen = transposed_im2col(input, geometry)
    else:
        patches, seen = im2col(input, geometry), None
    patches = standardize(patches, seen, eps, center, scale)

    filters = group_weight(weight, geometry)  # [G, O/G, C/G, *k]; transposed: [G, C/G, O/G, *k]
    if geometry.transposed:
        filters = filters.transpose(1, 2)
    filters = filters.flatten(2)  # [G, O/G, I]
    out = torch.einsum('gni,goi->gon', patches.to(weight.dtype), filters)  # n counts N * L

    size = geometry.output_size(input.shape[2:])
    out = out.unflatten(2, (input.shape[0], *size)).flatten(0, 1).movedim(0, 1)  # [N, O, *L]
    affine_shape = (1, -1) + (1,) * geometry.ndim
    if gain is not None:
        out = out * gain.reshape(affine_shape)
    if bias is not None:
        out = out + bias.reshape(affine_shape)
    return out


def standardize(patches: Tensor, seen: Tensor | None, eps: float, center: bool, scale: bool):
    """Standardise each row of the im2col matrix, in float32 at least.

    Args:
        patches: [..., I]
        seen: [..., I] of 0 and 1, the values that count (transposed convolution), or None for all.
    """
    p = patches if patches.dtype == torch.float64 else patches.float()
    seen = torch.ones_like(p) if seen is None else seen.to(p.dtype)
    count = seen.sum(-1, keepdim=True).clamp(min=1)
    mean = (p * seen).sum(-1, keepdim=True) / count
    var = ((p - mean).square() * seen).sum(-1, keepdim=True) / count
    if center:
        p = (p - mean) * seen
    if scale:
        p = p / torch.sqrt(var + eps)
    return p


def im2col(x: Tensor, geometry: Geometry) -> Tensor:
    """[N, C, *S] -> [G, N * L, C/G * K]: a row for each output position, padding included."""
    x = F.pad(x, [p for pads in reversed(geometry.pads) for p in pads])
    for axis, (k, s, d) in enumerate(
        zip(geometry.kernel, geometry.stride, geometry.dilation, strict=True)
    ):
        x = x.unfold(2 + axis, d * (k - 1) + 1, s)[..., ::d]  # appends the window as a last axis
    x = group_channels(x, geometry.groups)  # [N, G, C/G, *L, *k]
    x = x.movedim(2, 2 + geometry.ndim)  # [N, G, *L, C/G, *k]
    x = x.flatten(2 + geometry.ndim).flatten(2, 1 + geometry.ndim)  # [N, G, L, I]
    return x.transpose(0, 1).flatten(1, 2)


def transposed_im2col(x: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Rows of the im2col matrix of a transposed convolution, and which of their values are input.

    Its output is an ordinary convolution, kernel flipped, over the input with stride - 1 zeros
    between pixels. Those zeros and the border are not input: the second result marks them 0.
    """
    size = geometry.output_size(x.shape[2:])
    ones = x.new_ones(1, x.shape[1], *x.shape[2:])
    rows = []
    for tensor in (x, ones):
        canvas = tensor.new_zeros(
            *tensor.shape[:2],
            *((n - 1) * s + 1 for n, s in zip(tensor.shape[2:], geometry.stride, strict=True)),
        )
        canvas[(..., *(slice(None, None, s) for s in geometry.stride))] = tensor
        pads, kernel, dilation = [], geometry.kernel, geometry.dilation
        for axis, (left, _) in enumerate(geometry.pads):
            reach = dilation[axis] * (kernel[axis] - 1)
            right = size[axis] + reach - canvas.shape[2 + axis] - (reach - left)
            pads.append((reach - left, right))  # negative where torch's padding crops the output
        ordinary = Geometry(kernel, (1,) * len(kernel), tuple(pads), dilation, geometry.groups)
        row = im2col(canvas, ordinary)  # [G, N * L, C/G * K]
        row = row.unflatten(2, (-1, geometry.taps)).flip(-1).flatten(2)  # the flipped kernel
        rows.append(row)
    patches, seen = rows
    return patches, seen.repeat(1, x.shape[0], 1)
