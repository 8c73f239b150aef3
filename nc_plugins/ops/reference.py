"""The definition of normalized convolution. Every other backend is tested against it.

Source: "Normalized Convolutional Neural Network", arXiv 2005.05274, Sec. 2.1 to 2.4. For every
output position k and group, let p be the row of the im2col matrix: the I = C/groups * kh * kw input
values under the kernel, zero padding included. Then

    phat[i] = (p[i] - mean(p)) / sqrt(var(p) + eps)                           (the paper's Eq. 2)
    out[o, k] = gain[o] * sum_i weight[o, i] * phat[i] + bias[o]              (Eq. 3, affine)

with the biased variance (divide by I). The paper's Eq. (2) prints sigma + eps and its listing
sqrt(var + eps); this is the listing's form. A transposed convolution standardises over the input
values that a position receives, not over the zeros that a stride inserts.

The code builds the whole im2col matrix. It is written for readers and never optimised.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .backend import Plan
from .geometry import Geometry, group_channels, group_weight


def nc_conv1d(*args, **options) -> Tensor:
    """The definition over [N, C, L]; arguments of :func:`nc_plugins.ops.nc_conv1d`."""
    return _operator('nc_conv1d', *args, **options)


def nc_conv2d(*args, **options) -> Tensor:
    """The definition over [N, C, H, W]; arguments of :func:`nc_plugins.ops.nc_conv2d`."""
    return _operator('nc_conv2d', *args, **options)


def nc_conv3d(*args, **options) -> Tensor:
    """The definition over [N, C, D, H, W]; arguments of :func:`nc_plugins.ops.nc_conv3d`."""
    return _operator('nc_conv3d', *args, **options)


def nc_conv_transpose2d(*args, **options) -> Tensor:
    """The transposed definition; arguments of :func:`nc_plugins.ops.nc_conv_transpose2d`."""
    return _operator('nc_conv_transpose2d', *args, **options)


def _operator(name: str, *args, **options) -> Tensor:
    from . import nc_conv  # not at the top: its dispatcher imports this module

    return getattr(nc_conv, name)(*args, backend='reference', **options)


def missing() -> None:
    """It runs wherever torch does."""


def refuses(input: Tensor, weight: Tensor, geometry: Geometry) -> None:
    """It takes any tensors."""


def nc_conv(
    input: Tensor, weight: Tensor, bias: Tensor | None, gain: Tensor | None, plan: Plan
) -> Tensor:
    """The definition. [N, C, *S] -> [N, O, *L]."""
    geometry = plan.geometry
    if geometry.transposed:
        patches, mask = transposed_im2col(input, geometry)
    else:
        patches, mask = im2col(input, geometry), None
    patches = standardize(patches, mask, plan.eps, plan.center, plan.scale)

    filters = group_weight(weight, geometry)  # [G, O/G, C/G, *k]; transposed: [G, C/G, O/G, *k]
    if geometry.transposed:
        filters = filters.transpose(1, 2)
    filters = filters.flatten(2)  # [G, O/G, I]
    out = torch.einsum('gni,goi->gon', patches.to(plan.dtype), filters.to(plan.dtype))

    size = geometry.output_size(input.shape[2:])
    out = out.unflatten(2, (input.shape[0], *size)).flatten(0, 1).movedim(0, 1)  # [N, O, *L]
    affine_shape = (1, -1) + (1,) * geometry.ndim
    if gain is not None:
        out = out * gain.reshape(affine_shape)
    if bias is not None:
        out = out + bias.reshape(affine_shape)
    return out.to(plan.dtype)


def standardize(patches: Tensor, mask: Tensor | None, eps: float, center: bool, scale: bool):
    """Standardise each row of the im2col matrix, in float32 at least.

    Args:
        patches: [..., I].
        mask: [..., I], 1 for the values that belong to the patch and 0 for the others, which a
            transposed convolution has. None: all belong to it.
    """
    p = patches if patches.dtype == torch.float64 else patches.float()
    mask = torch.ones_like(p) if mask is None else mask.to(p.dtype)
    count = mask.sum(-1, keepdim=True).clamp(min=1)
    mean = (p * mask).sum(-1, keepdim=True) / count
    var = ((p - mean).square() * mask).sum(-1, keepdim=True) / count
    if center:
        p = (p - mean) * mask
    if scale:
        p = p / torch.sqrt(var + eps)
    return p


def im2col(x: Tensor, geometry: Geometry) -> Tensor:
    """[N, C, *S] -> [G, N * L, C/G * K]: one row per output position, padding included."""
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
    """The im2col matrix of a transposed convolution, and a mask of the values that are input.

    A transposed convolution is an ordinary one with a flipped kernel, over the input with
    stride - 1 zeros between its pixels. The mask is 0 for these zeros and for the border.
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
            extent = dilation[axis] * (kernel[axis] - 1)
            right = size[axis] + extent - canvas.shape[2 + axis] - (extent - left)
            pads.append((extent - left, right))  # negative where torch's padding crops the output
        ordinary = Geometry(kernel, (1,) * len(kernel), tuple(pads), dilation, geometry.groups)
        row = im2col(canvas, ordinary)  # [G, N * L, C/G * K]
        row = row.unflatten(2, (-1, geometry.taps)).flip(-1).flatten(2)  # the flipped kernel
        rows.append(row)
    patches, mask = rows
    return patches, mask.repeat(1, x.shape[0], 1)
