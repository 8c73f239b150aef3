"""Mean and variance of every patch from single-channel maps, and the adjoint of that gathering.

The statistics of a patch follow from those of its K pixels by the law of total variance, which
subtracts no two large numbers:

    mean(p) = mean of m,    var(p) = mean of v + variance of m,

where m and v are the mean and the variance of each pixel over its channels. The one-pass form
E[x^2] - E[x]^2 is 36 % wrong in float32 at mean/std = 1000.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from .geometry import Geometry, group_channels


def pixel_statistics(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Mean of each pixel over its channels [N, G, 1, *S], and ``x`` minus it [N, G, C/G, *S]."""
    x = group_channels(x, groups)
    mean = x.mean(2, keepdim=True)
    return mean, x - mean


def patch_statistics(pixel_mean: Tensor, centered: Tensor, geometry: Geometry):
    """Mean and biased variance of every patch [N, G, *L], and its :func:`mean_offsets`.

    Takes the :func:`pixel_statistics` of the padded input. The offsets are None for a 1x1 kernel,
    whose stride is 1.
    A transposed convolution takes statistics over the values that reach a position, and gives 0
    and 0 for a position that receives none.
    """
    if geometry.taps == 1 and not geometry.transposed:
        return pixel_mean.squeeze(2), centered.square().mean(2), None
    size = geometry.output_size(pixel_mean.shape[3:])
    maps = torch.cat((pixel_mean.squeeze(2), centered.square().mean(2)), 1)
    means, variances = windows(maps, geometry).split(geometry.groups, 1)  # [N, G, K, L] each
    count = tap_count(pixel_mean.squeeze(2), geometry)
    mean = (means.sum(2, keepdim=True) / count).squeeze(2).unflatten(2, size)
    offsets = _offsets(means, mean, geometry, pixel_mean.shape[3:])
    var = (offsets.square() + variances).sum(2, keepdim=True) / count
    return mean, var.squeeze(2).unflatten(2, size), offsets


def mean_offsets(pixel_mean: Tensor, patch_mean: Tensor, geometry: Geometry) -> Tensor:
    """Mean of each pixel of a patch minus the mean of the patch, [N, G, K, L].

    0 where a transposed convolution has no pixel.
    """
    means = windows(pixel_mean.squeeze(2), geometry)
    return _offsets(means, patch_mean, geometry, pixel_mean.shape[3:])


def _offsets(means: Tensor, patch_mean: Tensor, geometry: Geometry, size) -> Tensor:
    offsets = means - patch_mean.flatten(2).unsqueeze(2)
    return offsets * tap_mask(means, size, geometry) if geometry.transposed else offsets


def tap_mask(like: Tensor, size, geometry: Geometry) -> Tensor:
    """1 where a tap of a transposed convolution receives an input pixel, else 0: [1, 1, K, L]."""
    return windows(like.new_ones(1, 1, *size), geometry)


def windows(maps: Tensor, geometry: Geometry) -> Tensor:
    """The K pixels of each patch, [N, M, *S] -> [N, M, K, L]; 0 where there is none.

    This is im2col of a few single-channel maps, not of all channels.
    """
    channels, kernel, dilation = maps.shape[1], geometry.kernel, geometry.dilation
    stride = geometry.stride
    if geometry.transposed:
        size = geometry.output_size(maps.shape[2:])
        strided = [(n - 1) * s + 1 for n, s in zip(maps.shape[2:], stride, strict=True)]
        canvas = maps.new_zeros(*maps.shape[:2], *strided)
        canvas[(..., *(slice(None, None, s) for s in stride))] = maps
        extent = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        left = [e - pad for e, (pad, _) in zip(extent, geometry.pads, strict=True)]
        right = [o + e - lft - n for o, e, lft, n in zip(size, extent, left, strided, strict=True)]
        maps = F.pad(canvas, [left[1], right[1], left[0], right[0]])  # negative pads crop
        return F.unfold(maps, kernel, dilation).unflatten(1, (channels, geometry.taps))
    if geometry.ndim == 2:
        return F.unfold(maps, kernel, dilation, 0, stride).unflatten(1, (channels, geometry.taps))
    for axis in range(geometry.ndim):
        extent = dilation[axis] * (kernel[axis] - 1) + 1
        maps = maps.unfold(2 + axis, extent, stride[axis])[..., :: dilation[axis]]
    maps = maps.flatten(2 + geometry.ndim).movedim(-1, 2)  # [N, M, K, *L]
    return maps.flatten(3)


def scatter_deviations(
    factor: Tensor,
    patch_mean: Tensor,
    pixel_mean: Tensor,
    offsets: Tensor | None,
    geometry: Geometry,
) -> tuple[Tensor, Tensor]:
    """Sums over the patches k that contain a pixel: factor_k, and factor_k * (m - mean_k).

    m is the mean of the pixel over its channels. The second sum is taken over the small
    differences, less their mean in each patch, which is the rounding error of mean_k. So a patch
    whose pixels have equal means adds exactly 0, however large its factor is. ``offsets`` are the
    :func:`mean_offsets`, None for a 1x1 kernel, whose stride is 1.

    Shapes: factor and patch_mean [N, G, *L], pixel_mean [N, G, 1, *S] -> [N, G, *S] each.
    """
    size = pixel_mean.shape[3:]
    if offsets is not None:
        error = offsets.sum(2, keepdim=True) / tap_count(pixel_mean.squeeze(2), geometry)
    if geometry.transposed:
        error = torch.zeros_like(factor) if offsets is None else error.view_as(factor)
        maps = covering_patches(torch.cat((factor, patch_mean, error), 1), size, geometry)
        factors, means, errors = maps.chunk(3, 1)
        return factors.sum(2), (factors * (pixel_mean - means - errors)).sum(2)
    if offsets is None:  # the patch is the pixel
        return factor, torch.zeros_like(factor)
    factors = factor.flatten(2).unsqueeze(2).expand(-1, -1, geometry.taps, -1)
    # factor * (offset - error), in one pass
    products = torch.addcmul(-factors[:, :, :1] * error, factors, offsets)
    return _scatter(factors, size, geometry), _scatter(products, size, geometry)


def covering_patches(maps: Tensor, size, geometry: Geometry) -> Tensor:
    """The values of the patches that contain a pixel, for a transposed convolution.

    [N, M, *L] -> [N, M, K, *size]; 0 where there is no patch.
    """
    pads = [left for left, _ in geometry.pads]
    values = F.unfold(maps, geometry.kernel, geometry.dilation, pads, geometry.stride)
    full = geometry._replace(transposed=False).output_size(maps.shape[2:])
    values = values.unflatten(1, (maps.shape[1], geometry.taps)).unflatten(3, full)
    return values[..., : size[0], : size[1]]


def _scatter(columns: Tensor, size, geometry: Geometry) -> Tensor:
    """The adjoint of :func:`windows` for an ordinary convolution, [N, M, K, L] -> [N, M, *size]."""
    kernel, stride, dilation = geometry.kernel, geometry.stride, geometry.dilation
    if geometry.ndim == 2:
        return F.fold(columns.flatten(1, 2), size, kernel, dilation, 0, stride)
    columns = columns.unflatten(3, geometry.output_size(size))
    out = columns.new_zeros(*columns.shape[:2], *size)
    for k, tap in enumerate(itertools.product(*map(range, kernel))):
        pixels = [
            slice(t * d, t * d + (n - 1) * s + 1, s)
            for t, d, n, s in zip(tap, dilation, columns.shape[3:], stride, strict=True)
        ]
        out[(..., *pixels)] += columns[:, :, k]
    return out


def tap_count(x: Tensor, geometry: Geometry) -> int | Tensor:
    """Number of pixels in each patch: K, or [1, 1, 1, L] for a transposed convolution."""
    if not geometry.transposed:
        return geometry.taps
    return tap_mask(x, x.shape[2:], geometry).sum(2, keepdim=True).clamp(min=1)


def patch_size(x: Tensor, geometry: Geometry) -> int | Tensor:
    """I of the definition, the number of values in each patch: a number or [1, 1, *L]."""
    taps = tap_count(x, geometry)
    if isinstance(taps, Tensor):
        taps = taps.squeeze(2).unflatten(2, geometry.output_size(x.shape[2:]))
    return x.shape[1] // geometry.groups * taps
