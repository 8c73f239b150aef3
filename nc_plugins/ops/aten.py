"""Normalized convolution as one ordinary convolution: stock operators, any device, exportable.

The patch mean cancels against a kernel that sums to zero (the identity, docs/math.md):

    sum_i w[o,i] * (p[i] - mean(p)) = sum_i (w[o,i] - mean(w[o])) * p[i]

so NC(x) = conv(x, gain * (w - mean(w))) * rstd + bias, where rstd is one single-channel map, which
statistics.py makes without im2col.

The same holds inside a pixel: its mean m over the channels is taken off before the convolution.
What it contributes is a small product, of the kernel's sum over channels with the distance of each
m from its patch's mean, which statistics.py has at hand:

    NC(x) = (conv(x - m, k) + (sum_c k) . (m - mean(p))) * rstd + bias,    k = gain * (w - mean(w))

In exact arithmetic that changes nothing; in floating point no long sum carries a large mean which
cancels only at its end. (For a 1x1 kernel the second term is zero.) A transposed convolution, whose
kernel does not sum to zero over just the taps that a position sees, needs nothing more.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .geometry import Geometry, autocasts, group_channels, group_weight, per_output
from .statistics import (
    cast,
    distances,
    patch_statistics,
    pixel_statistics,
    pixels_seen,
    scatter,
    upcast,
    values_seen,
)


def missing() -> None:
    """Runs wherever torch does,"""


def refuses(input: Tensor, weight: Tensor, geometry: Geometry) -> None:
    """on any tensors."""


class Folded(NamedTuple):
    """What stands in for a weight: see :func:`fold`."""

    kernel: Tensor  # as the weight, in the dtype of the convolution
    sums: Tensor | None  # of the kernel over a group's channels [G, O/G, K], where they matter


def fold(
    weight: Tensor, gain: Tensor | None, geometry: Geometry, center: bool, dtype: torch.dtype
) -> Folded:
    """What :func:`nc_conv` makes of weight and gain in every call, for those who would keep it."""
    with without_autocast(weight.device.type):
        if geometry.ndim == 1:
            weight, geometry = weight.unsqueeze(2), _lifted(geometry)
        return _fold(weight, gain, geometry, center, dtype)


def _fold(weight, gain, geometry, center, dtype) -> Folded:
    kernel = _kernel(weight, gain, geometry, center)
    sums = _over_channels(kernel, geometry) if center and geometry.taps > 1 else None
    return Folded(kernel.to(dtype), sums)


def output_dtype(input: Tensor) -> torch.dtype:
    """What a convolution would compute in here."""
    device = input.device.type
    if autocasts(device) and input.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return input.dtype


def nc_conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gain: Tensor | None,
    geometry: Geometry,
    eps: float,
    center: bool,
    scale: bool,
    folded: Folded | None = None,
) -> Tensor:
    """The fast form for a checked geometry. [N, C, *S] -> [N, O, *L].

    ``folded``: of this weight and gain, which then go unused; no gradient is recorded for them.
    """
    if geometry.ndim == 1:
        lifted = (input.unsqueeze(2), weight.unsqueeze(2), bias, gain, _lifted(geometry))
        return nc_conv(*lifted, eps, center, scale, folded).squeeze(2)
    device = input.device.type
    dtype = output_dtype(input)
    tensors = (input, weight, bias, gain)
    options = (geometry, eps, center, scale, dtype)
    records = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    if records and not torch.jit.is_tracing():  # the tracer cannot follow a Python function
        return _NCConv.apply(*tensors, *options)
    with without_autocast(device):
        y = _forward(input, weight, gain, *options, folded)[0]
        return cast(_add_bias(y, bias), dtype)


def _lifted(geometry: Geometry) -> Geometry:
    """A line is an image of height 1."""
    return Geometry(
        *((1, *steps) for steps in (geometry.kernel, geometry.stride)),
        ((0, 0), *geometry.pads),
        (1, *geometry.dilation),
        geometry.groups,
    )


class _NCConv(torch.autograd.Function):
    """Forward and explicit backward; keeps what convolution + GroupNorm keep.

    Kept for backward: the input, the weight, the output before its bias, and two single-channel
    maps (mean and rstd of every patch). Where there is no bias the kept output is the returned
    one, so changing it in place before backward is an error that torch reports.
    """

    @staticmethod
    def forward(ctx, input, weight, bias, gain, *options):
        with without_autocast(input.device.type):
            y, *statistics = _forward(input, weight, gain, *options)
            out = cast(_add_bias(y, bias), options[-1])
            y = out if bias is None else cast(y, options[-1])
        ctx.save_for_backward(input, weight, gain, y, *statistics)
        ctx.options = options
        ctx.bias_dtype = None if bias is None else bias.dtype
        return out

    @staticmethod
    def backward(ctx, grad):
        input, weight, gain, *kept = ctx.saved_tensors
        need_input, need_weight, need_bias, need_gain = ctx.needs_input_grad[:4]
        needs = (need_input, need_weight, need_gain)
        with without_autocast(grad.device.type):
            grad_bias = None
            if need_bias:
                rest = [axis for axis in range(grad.dim()) if axis != 1]
                grad_bias = grad.sum(rest, dtype=ctx.bias_dtype)
            if torch.is_grad_enabled():  # create_graph: let autograd differentiate the forward
                grads = differentiable_backward(grad, (input, weight, gain), needs, ctx.options)
            else:
                grads = _backward(grad, input, weight, gain, *kept, needs, *ctx.options)
        grad_input, grad_weight, grad_gain = grads
        return grad_input, grad_weight, grad_bias, grad_gain, *(None for _ in ctx.options)


def _forward(x, weight, gain, geometry, eps, center, scale, dtype, folded=None):
    """Output before the bias [N, O, *L], and mean and rstd of the patches [N, G, *L] or None.

    In float32 at least: half precision rounds what the convolution returns, and then the output.
    """
    x, geometry = _pad(x, geometry)
    kernel, sums = folded or _fold(weight, gain, geometry, center, dtype)
    mean = rstd = None
    if center or scale:
        level, deviation = pixel_statistics(x, geometry.groups)
        mean, var, distance = patch_statistics(level, deviation, geometry)
    if scale:
        rstd = torch.rsqrt(var + eps)
    source = deviation.flatten(1, 2) if center else x
    y = upcast(_convolution(source.to(dtype), kernel, geometry))
    if sums is not None:
        term = torch.matmul(sums, distance)  # [N, G, O/G, L]
        y = _per_group('add', y, term.unflatten(3, y.shape[2:]), geometry)
    if scale:
        y = _per_group('mul', y, rstd.unsqueeze(2), geometry)
    return y, mean, rstd


def _backward(grad, x, weight, gain, y, mean, rstd, needs, geometry, eps, center, scale, dtype):
    """Gradients of input, weight and gain, each None where ``needs`` says so.

    With r = rstd and y = z * r: the convolution's own gradients of z, from grad * r, and for the
    input the gradient through r, which is d * (p - mean(p)) for every value p of a patch, where
    d = -r^2 * sum_o(grad * y) / I.
    """
    need_input, need_weight, need_gain = needs
    need_kernel = need_weight or need_gain
    size, input_dtype, pads = x.shape[2:], x.dtype, geometry.pads
    x, geometry = _pad(x, geometry)
    kernel = _kernel(weight, gain, geometry, center)
    if center or scale:
        level, deviation = pixel_statistics(x, geometry.groups)
    source = deviation.flatten(1, 2) if center else x
    grad_z = grad
    if scale:
        grad_z = _per_group('mul', grad, rstd.unsqueeze(2), geometry, ours=False)
    grad_input, grad_kernel = _convolution_backward(
        grad_z, source.to(dtype), kernel.to(dtype), geometry, need_input, need_kernel
    )
    if need_kernel and center and geometry.taps > 1:
        grads = group_channels(grad_z, geometry.groups).flatten(3).to(mean.dtype)
        distance = distances(level, mean, geometry)
        grad_sum = torch.matmul(grads, distance.transpose(2, 3)).sum(0)  # [G, O/G, K]
        grad_kernel = _add_over_channels(grad_kernel.to(mean.dtype), grad_sum, geometry)

    half = y.dtype in (torch.bfloat16, torch.float16)
    if (scale and need_input) or (half and need_gain):
        product = upcast(grad) * y
    slope = offset = None  # of the input: through rstd, and for a transposed one through the mean
    if scale and need_input:
        dot = group_channels(product, geometry.groups).sum(2)
        slope = dot * rstd.square() / -values_seen(x, geometry)
        offset = slope * mean
    if need_input and center and geometry.transposed:
        seen = pixels_seen(mean, x.shape[2:], geometry)
        seen = torch.matmul(_over_channels(kernel, geometry), seen).unflatten(3, mean.shape[2:])
        grads = group_channels(grad_z, geometry.groups).to(mean.dtype)
        through_mean = (grads * seen).sum(2) / values_seen(x, geometry)
        slope = torch.zeros_like(mean) if slope is None else slope
        offset = through_mean if offset is None else offset + through_mean

    if need_input:
        crop = (..., *(slice(left, left + n) for (left, _), n in zip(pads, size, strict=True)))
        crop = ... if geometry.transposed else crop
        grad_input = grad_input[crop].to(x.dtype)
        if slope is not None:
            maps = scatter(torch.cat((slope, offset), 1), x.shape[2:], geometry)[crop]
            slope, offset = (half.unsqueeze(2) for half in maps.chunk(2, 1))
            # (level + deviation) * slope - offset, small numbers last
            offset = level[crop] * slope - offset
            grads = group_channels(grad_input, geometry.groups)
            grads = torch.addcmul(grads, deviation[crop], slope)
            grad_input = grads.add_(offset).flatten(1, 2)
        grad_input = grad_input.to(input_dtype)

    grad_weight = grad_gain = None
    if need_kernel:
        grads = group_weight(_centered(upcast(grad_kernel), geometry, center), geometry)
        if need_gain:
            products = grads * group_weight(_centered(upcast(weight), geometry, center), geometry)
            grad_gain = products.sum(geometry.tap_dims).flatten()
            if half:  # grads are rounded, so rather sum(grad * y) / gain, unless the gain is zero
                rest = [axis for axis in range(grad.dim()) if axis != 1]
                grad_gain = torch.where(gain == 0, grad_gain, product.sum(rest) / upcast(gain))
            grad_gain = grad_gain.to(gain.dtype)
        if need_weight:
            grad_weight = grads if gain is None else grads * per_output(gain, geometry)
            grad_weight = grad_weight.flatten(0, 1).to(weight.dtype)
    return grad_input, grad_weight, grad_gain


def differentiable_backward(grad, tensors, needs, options):
    """The same gradients with a graph of their own, by differentiating the forward pass."""
    with torch.enable_grad():
        # Fresh aliases: a weight computed from the input must not be followed back to it here.
        aliases = [None if t is None else t.view_as(t) for t in tensors]
        y = _forward(*aliases, *options)[0]
        wanted = [alias for alias, need in zip(aliases, needs, strict=True) if need]
        grads = torch.autograd.grad(y, wanted, upcast(grad), create_graph=True) if wanted else ()
        grads = iter(grads)
    return tuple(next(grads) if need else None for need in needs)


def _pad(x: Tensor, geometry: Geometry) -> tuple[Tensor, Geometry]:
    """The input in float32 at least and padded, and the geometry that is left to do."""
    x = upcast(x)
    if not geometry.transposed and any(map(any, geometry.pads)):
        x = F.pad(x, [pad for pads in reversed(geometry.pads) for pad in pads])
        geometry = geometry._replace(pads=((0, 0),) * geometry.ndim)
    return x, geometry


def _centered(weight: Tensor, geometry: Geometry, center: bool) -> Tensor:
    """Each filter minus its mean: blind to whatever is constant over a patch."""
    if not center:
        return weight
    filters = group_weight(weight, geometry)
    return (filters - filters.mean(geometry.tap_dims, keepdim=True)).flatten(0, 1)


def _kernel(weight: Tensor, gain: Tensor | None, geometry: Geometry, center: bool) -> Tensor:
    """The kernel to convolve with: centered, the gain folded in, in float32 at least."""
    weight = _centered(upcast(weight), geometry, center)
    if gain is not None:
        weight = (group_weight(weight, geometry) * per_output(gain, geometry)).flatten(0, 1)
    return weight


def _over_channels(kernel: Tensor, geometry: Geometry) -> Tensor:
    """Sum of the kernel over a group's channels, [G, O/G, K], taps in the order of windows."""
    filters = group_weight(kernel, geometry)
    if geometry.transposed:  # whose windows see the kernel flipped
        return filters.sum(1).flatten(2).flip(2)
    return filters.sum(2).flatten(2)


def _add_over_channels(grad_kernel: Tensor, grad_sum: Tensor, geometry: Geometry) -> Tensor:
    """Add the gradient [G, O/G, K] of :func:`_over_channels` to that of the kernel."""
    grad_sum = grad_sum.flip(2) if geometry.transposed else grad_sum
    grad_sum = grad_sum.unflatten(2, geometry.kernel).unsqueeze(1 if geometry.transposed else 2)
    return (group_weight(grad_kernel, geometry) + grad_sum).flatten(0, 1)


def _convolution(x: Tensor, kernel: Tensor, geometry: Geometry) -> Tensor:
    return torch.convolution(x, kernel, None, *_convolution_arguments(geometry))


def _convolution_backward(grad, x, kernel, geometry, need_input, need_kernel):
    grad_input, grad_kernel, _ = torch.ops.aten.convolution_backward(
        grad, x, kernel, None, *_convolution_arguments(geometry), (need_input, need_kernel, False)
    )
    return grad_input, grad_kernel


def _convolution_arguments(geometry: Geometry) -> tuple:
    pads = [left for left, _ in geometry.pads]
    extra = geometry.output_padding or (0,) * geometry.ndim
    steps = (geometry.stride, pads, geometry.dilation)
    return (*steps, geometry.transposed, extra, geometry.groups)


def _per_group(name: str, y: Tensor, other: Tensor, geometry: Geometry, ours=True) -> Tensor:
    """'add', 'sub' or 'mul' of y [N, O, *L] and other [N, G, 1 or O/G, *L], in y's dtype.

    Changes y in place if it is ours, unless double backward is recording.
    """
    grouped = group_channels(y, geometry.groups)
    if ours and not torch.is_grad_enabled():
        getattr(grouped, name + '_')(other)
        return y
    return getattr(torch, name)(grouped, other).to(y.dtype).flatten(1, 2)


def _add_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    if bias is None:
        return y
    return y + bias.to(y.dtype).reshape(1, -1, *(1 for _ in y.shape[2:]))


def without_autocast(device: str):
    if autocasts(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()
