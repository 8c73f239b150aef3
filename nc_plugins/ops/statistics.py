"""Mean and variance of every patch from single-channel maps, and the adjoint of that gathering.

A patch's statistics come from those of its pixels by the law of total variance, which subtracts no
two large numbers:

    mean(p) = mean of m,    var(p) = mean of v + variance of m,

over the K pixels of the window, m and v being each pixel's mean and variance over its channels.
(E[x^2] - E[x]^2 in one pass would be 36 % wrong at mean/std = 1000 in float32.)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .geometry import Geometry, group_channels


def pixel_statistics(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Mean over the channels of each group [N, G, 1, *S], and what is left [N, G, C/G, *S]."""
    x = group_channels(x, groups)
    mean = x.mean(2, keepdim=True)
    return mean, x - mean


def patch_statistics(level: Tensor, deviation: Tensor, geometry: Geometry):
    """Mean and biased variance of every patch, [N, G, *L] each, from :func:`pixel_statistics` of
    the padded input; and :func:`distances`, which they need on the way (None for a 1x1 kernel).

    Transposed: over the values that reach a position; 0 and 0 where none does.
    """
    if geometry.taps == 1 and not geometry.transposed:
        step = (..., *(slice(None, None, step) for step in geometry.stride))
        return level.squeeze(2)[step], deviation[step].square().mean(2), None
    size = geometry.output_size(level.shape[3:])
    pixels = torch.cat((level.squeeze(2), deviation.square().mean(2)), 1)
    levels, variances = windows(pixels, geometry).split(geometry.groups, 1)  # of [N, 2G, K, L]
    count = taps_seen(level.squeeze(2), geometry)
    mean = (levels.sum(2, keepdim=True) / count).squeeze(2).unflatten(2, size)
    distance = _distances(levels, mean, geometry, level.shape[3:])
    var = (distance.square() + variances).sum(2, keepdim=True) / count
    return mean, var.squeeze(2).unflatten(2, size), distance


def distances(level: Tensor, mean: Tensor, geometry: Geometry) -> Tensor:
    """Each pixel's mean less that of the patch which sees it, [N, G, K, L]; 0 where none is."""
    return _distances(windows(level.squeeze(2), geometry), mean, geometry, level.shape[3:])


def _distances(levels: Tensor, mean: Tensor, geometry: Geometry, size) -> Tensor:
    distance = levels - mean.flatten(2).unsqueeze(2)
    return distance * pixels_seen(levels, size, geometry) if geometry.transposed else distance


def pixels_seen(like: Tensor, size, geometry: Geometry) -> Tensor:
    """1 where a tap of a transposed convolution meets an input pixel, else 0: [1, 1, K, L]."""
    return windows(like.new_ones(1, 1, *size), geometry)


def windows(maps: Tensor, geometry: Geometry) -> Tensor:
    """The K pixels each output position sees, [N, M, *S] -> [N, M, K, L]; zeros where it sees none.

    im2col of a few maps, not of all channels: what the fast form pays instead.
    """
    channels, kernel, dilation = maps.shape[1], geometry.kernel, geometry.dilation
    stride = geometry.stride
    if geometry.transposed:
        size = geometry.output_size(maps.shape[2:])
        spread = [(n - 1) * s + 1 for n, s in zip(maps.shape[2:], stride, strict=True)]
        canvas = maps.new_zeros(*maps.shape[:2], *spread)
        canvas[(..., *(slice(None, None, s) for s in stride))] = maps
        reach = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        left = [r - pad for r, (pad, _) in zip(reach, geometry.pads, strict=True)]
        right = [o + r - lft - n for o, r, lft, n in zip(size, reach, left, spread, strict=True)]
        maps = F.pad(canvas, [left[1], right[1], left[0], right[0]])  # below 0: crops
        return F.unfold(maps, kernel, dilation).unflatten(1, (channels, geometry.taps))
    if geometry.ndim == 2:
        return F.unfold(maps, kernel, dilation, 0, stride).unflatten(1, (channels, geometry.taps))
    for axis in range(geometry.ndim):
        span = dilation[axis] * (kernel[axis] - 1) + 1
        maps = maps.unfold(2 + axis, span, stride[axis])[..., :: dilation[axis]]
    maps = maps.flatten(2 + geometry.ndim).movedim(-1, 2)  # [N, M, K, *L]
    return maps.flatten(3)


def scatter(maps: Tensor, size, geometry: Geometry) -> Tensor:
    """Each window adds its value to the pixels it saw, [N, M, *L] -> [N, M, *size].

    The adjoint of ``windows(...).sum(2)``.
    """
    kernel, stride, dilation = geometry.kernel, geometry.stride, geometry.dilation
    if geometry.transposed:  # the adjoint of a transposed convolution is the convolution
        pads = [left for left, _ in geometry.pads]
        out = F.unfold(maps, kernel, dilation, pads, stride)
        out = out.unflatten(1, (maps.shape[1], geometry.taps)).sum(2)
        seen = geometry._replace(transposed=False).output_size(maps.shape[2:])
        return out.unflatten(2, seen)[..., : size[0], : size[1]]
    if geometry.ndim == 2:
        columns = maps.flatten(2).unsqueeze(2).expand(-1, -1, geometry.taps, -1).flatten(1, 2)
        return F.fold(columns, size, kernel, dilation, 0, stride)
    batch = maps.flatten(0, 1).unsqueeze(1)
    ones = maps.new_ones(1, 1, *kernel)
    like = maps.new_empty(batch.shape[0], 1, *size)
    none = (0,) * geometry.ndim
    out, _, _ = torch.ops.aten.convolution_backward(
        batch, like, ones, None, stride, none, dilation, False, none, 1, (True, False, False)
    )
    return out.unflatten(0, maps.shape[:2]).squeeze(2)


def taps_seen(x: Tensor, geometry: Geometry) -> int | Tensor:
    """Pixels that each output position sees: K, or for a transposed convolution [1, 1, 1, L]."""
    if not geometry.transposed:
        return geometry.taps
    return pixels_seen(x, x.shape[2:], geometry).sum(2, keepdim=True).clamp(min=1)


def values_seen(x: Tensor, geometry: Geometry) -> int | Tensor:
    """I of the definition: values in each patch, a number or [1, 1, *L]."""
    taps = taps_seen(x, geometry)
    if isinstance(taps, Tensor):
        taps = taps.squeeze(2).unflatten(2, geometry.output_size(x.shape[2:]))
    return x.shape[1] // geometry.groups * taps


def upcast(x: Tensor) -> Tensor:
    """Statistics are taken in float32, in float64 for float64."""
    return x if x.dtype == torch.float64 else cast(x, torch.float32)


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``x.to(dtype)`` that is no operation where there is nothing to do.

    Dynamo would record one whose result is its input, and an autograd.Function that returns the
    same tensor under two names loses its gradient there (torch 2.11).
    """
    return x if x.dtype == dtype else x.to(dtype)
