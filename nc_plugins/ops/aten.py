"""Normalized convolution as one ordinary convolution: stock operators, any device, exportable.

The patch mean cancels against a kernel that sums to zero (the identity, docs/math.md):

    sum_i w[o,i] * (p[i] - mean(p)) = sum_i (w[o,i] - mean(w[o])) * p[i]

so NC(x) = conv(x, k) * rstd + bias with k = gain * (w - mean(w)), where rstd is one single-channel
map. statistics.py computes it without im2col.

In floating point a large patch mean would cancel only at the end of a long sum. So the mean m of
each pixel over its channels is subtracted before the convolution. Its contribution is a small
product, of the kernel's sums over the channels with the offset of each m from its patch mean:

    NC(x) = (conv(x - m, k) + (sum_c k) . (m - mean(p))) * rstd + bias

For a 1x1 kernel the second term is zero.

In float16 the convolutions run on scaled tensors, which do not overflow (see precision.py).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .backend import Folded, Needs, Plan, bias_gradient, centered, fold, sum_over_channels
from .geometry import (
    Geometry,
    group_channels,
    group_weight,
    per_output,
    regular_strides,
    ungroup_channels,
)
from .precision import cast, gradient_scale, input_scale, upcast
from .statistics import (
    covering_patches,
    mean_offsets,
    patch_size,
    patch_statistics,
    pixel_statistics,
    scatter_deviations,
    tap_mask,
)


def missing() -> None:
    """It runs wherever torch does."""


def refuses(input: Tensor, weight: Tensor, geometry: Geometry) -> None:
    """It takes any tensors."""


def composite(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gain: Tensor | None,
    plan: Plan,
    folded: Folded | None = None,
) -> Tensor:
    """The operator as stock operators, which torch differentiates, transforms and traces."""
    if folded is None:
        folded = fold(weight, gain, plan.geometry, plan.center)
    inside = plan
    if plan.dtype == torch.float16 and torch.is_grad_enabled():
        inside = plan._replace(dtype=torch.float32)  # torch's gradients could overflow float16
    y, _, _ = _convolve(input, folded, inside, in_place=False)
    return cast(_add_bias(y, bias), plan.dtype)


def forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gain: Tensor | None,
    plan: Plan,
    save: bool,
    folded: Folded | None = None,
) -> tuple[Tensor, ...]:
    """See :class:`~.backend.Backend`. Saves the output before its bias, mean and rstd [N, G, *L].

    Without a bias the saved output is the returned one, so torch reports an error if it is changed
    in place before backward.
    """
    if folded is None:
        folded = fold(weight, gain, plan.geometry, plan.center)
    y, mean, rstd = _convolve(input, folded, plan, in_place=True)
    out = cast(_add_bias(y, bias), plan.dtype)
    if not save:
        return (out,)
    return out, out if bias is None else cast(y, plan.dtype), mean, rstd


def backward(
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    gain: Tensor | None,
    saved: tuple[Tensor, ...],
    needs: Needs,
    plan: Plan,
) -> tuple[Tensor | None, ...]:
    """See :class:`~.backend.Backend`.

    With r = rstd and y = z * r, the convolution's own gradients follow from grad * r. The input
    also gets the gradient through r: d * (p - mean(p)) for every value p of a patch, where
    d = -r^2 * sum_o(grad * y) / I.
    """
    y, mean, rstd = saved
    geometry, _, center, scale, dtype = plan
    half = dtype in (torch.bfloat16, torch.float16)
    need_filters = needs.weight or needs.gain
    size, pads = input.shape[2:], geometry.pads
    padded, geometry = _pad(input, geometry)
    x, geometry, visited = _visited(padded, geometry)
    kernel = fold(weight, gain, geometry, center).weight
    if center or scale:
        pixel_mean, centered_x = pixel_statistics(x, geometry.groups)
        offsets = mean_offsets(pixel_mean, mean, geometry) if geometry.taps > 1 else None
    source = ungroup_channels(centered_x) if center else regular_strides(x)
    if scale:
        grad_z = _per_group('mul', grad, rstd.unsqueeze(2), geometry, in_place=False)
    else:
        grad_z = upcast(grad)
    grad_input, grad_kernel = _convolution_backward(
        grad_z, source, kernel, geometry, dtype, gradient_scale(grad, rstd, dtype),
        needs.input, need_filters,
    )  # fmt: skip
    if need_filters and center and geometry.taps > 1:
        grads = group_channels(grad_z, geometry.groups).flatten(3)
        grad_sums = torch.matmul(grads, offsets.transpose(2, 3)).sum(0)  # [G, O/G, K]
        grad_kernel = _add_over_channels(grad_kernel, grad_sums, geometry)

    if (scale and needs.input) or (half and needs.gain):
        product = upcast(grad) * y

    if needs.input:
        crop = (..., *(slice(left, left + n) for (left, _), n in zip(pads, size, strict=True)))
        crop = ... if geometry.transposed else crop
        inside = crop if visited is None else ...
        grads = group_channels(grad_input[inside], geometry.groups)
        if center and geometry.transposed:  # whose kernel does not sum to zero over every patch
            mask = tap_mask(mean, x.shape[2:], geometry)
            sums = torch.matmul(sum_over_channels(kernel, geometry), mask)
            sums = sums.unflatten(3, mean.shape[2:])
            through_mean = (group_channels(grad_z, geometry.groups) * sums).sum(2)
            through_mean /= patch_size(x, geometry)
            through_mean = covering_patches(through_mean, x.shape[2:], geometry).sum(2)
            grads = grads - through_mean.unsqueeze(2)
        if scale:  # each patch adds factor * (x - its mean) = factor * (centered_x + mean offset)
            dot = group_channels(product, geometry.groups).sum(2)
            factor = dot * rstd.square() / -patch_size(x, geometry)
            maps = scatter_deviations(factor, mean, pixel_mean, offsets, geometry)
            factor, offset = (part[inside].unsqueeze(2) for part in maps)
            centered_x = centered_x[inside]
            if max(geometry.stride) > 1 or max(geometry.dilation) > 1:
                # A pixel that no patch contains has the factor 0, and may be NaN.
                centered_x = centered_x.masked_fill(factor == 0, 0)
            grads = torch.addcmul(grads, centered_x, factor).add_(offset)
        grad_input = ungroup_channels(grads)
        if visited is not None:
            whole = torch.zeros_like(padded)
            whole[visited] = grad_input
            grad_input = whole[crop]

    grad_weight = grad_gain = None
    if need_filters:
        grads = group_weight(centered(grad_kernel, geometry, center), geometry)
        if needs.gain:
            products = grads * group_weight(centered(upcast(weight), geometry, center), geometry)
            grad_gain = products.sum(geometry.tap_dims).flatten()
            if half:
                # grads are rounded, so sum(grad * y) / gain is closer. Not for a small gain: y may
                # be subnormal in float16.
                axes = [axis for axis in range(grad.dim()) if axis != 1]
                ratio = product.sum(axes) / upcast(gain)
                grad_gain = torch.where(gain.abs() < 0.01, grad_gain, ratio)
        if needs.weight:
            grad_weight = grads if gain is None else grads * per_output(gain, geometry)
            grad_weight = grad_weight.flatten(0, 1)
    return grad_input, grad_weight, bias_gradient(grad) if needs.bias else None, grad_gain


def differentiable_backward(
    grad: Tensor, input: Tensor, weight: Tensor, gain: Tensor | None, needs: Needs, plan: Plan
) -> tuple[Tensor | None, ...]:
    """The gradients of input, weight, bias and gain with a graph of their own."""
    tensors, needed = (input, weight, gain), (needs.input, needs.weight, needs.gain)
    with torch.enable_grad():
        # Aliases stop autograd from following a weight back to the input that it was made from.
        aliases = [None if t is None else t.view_as(t) for t in tensors]
        out = composite(aliases[0], aliases[1], None, aliases[2], plan)
        wanted = [alias for alias, need in zip(aliases, needed, strict=True) if need]
        grads = torch.autograd.grad(out, wanted, grad, create_graph=True) if wanted else ()
        grads = iter(grads)
    grad_input, grad_weight, grad_gain = (next(grads) if need else None for need in needed)
    return grad_input, grad_weight, bias_gradient(grad) if needs.bias else None, grad_gain


def _convolve(input: Tensor, folded: Folded, plan: Plan, in_place: bool):
    """Output before the bias [N, O, *L] in float32 at least; mean and rstd [N, G, *L] or None."""
    geometry, eps, center, scale, dtype = plan
    x, geometry, _ = _visited(*_pad(input, geometry))
    mean = rstd = None
    if center or scale:
        pixel_mean, centered_x = pixel_statistics(x, geometry.groups)
        mean, var, offsets = patch_statistics(pixel_mean, centered_x, geometry)
    if scale:
        rstd = torch.rsqrt(var + eps)
        if center and geometry.transposed and x.shape[1] == geometry.groups:
            rstd = rstd * (patch_size(x, geometry) > 1)  # one value minus its mean is 0
    source = ungroup_channels(centered_x) if center else regular_strides(x)
    kernel = folded.weight.to(dtype)
    y = upcast(torch.convolution(_operand(source, dtype), kernel, None, *_steps(geometry)))
    if dtype == torch.float16:
        y = y / input_scale(dtype)
    if folded.channel_sums is not None:
        term = torch.matmul(upcast(folded.channel_sums), offsets)  # [N, G, O/G, L]
        y = _per_group('add', y, term.unflatten(3, y.shape[2:]), geometry, in_place)
    if scale:
        y = _per_group('mul', y, rstd.unsqueeze(2), geometry, in_place)
    return y, mean, rstd


def _pad(x: Tensor, geometry: Geometry) -> tuple[Tensor, Geometry]:
    """The padded input in float32 at least, and the geometry that is left."""
    x = upcast(x)
    if not geometry.transposed and any(map(any, geometry.pads)):
        x = F.pad(x, [pad for pads in reversed(geometry.pads) for pad in pads])
        geometry = geometry._replace(pads=((0, 0),) * geometry.ndim)
    return x, geometry


def _visited(x: Tensor, geometry: Geometry) -> tuple[Tensor, Geometry, tuple | None]:
    """The pixels that a 1x1 kernel with a stride visits, the geometry that is left, and an index.

    The index is None if all pixels are used. Besides saving time this avoids an error in oneDNN of
    torch 2.11, which writes beyond the gradient of a channels_last 1x1 kernel with a stride.
    """
    if geometry.taps > 1 or geometry.transposed or max(geometry.stride) == 1:
        return x, geometry, None
    visited = (..., *(slice(None, None, step) for step in geometry.stride))
    return x[visited], geometry._replace(stride=(1,) * geometry.ndim), visited


def _operand(source: Tensor, dtype: torch.dtype) -> Tensor:
    """The input of the convolution in its dtype."""
    if dtype == torch.float16:
        source = source * input_scale(dtype)
    return source.to(dtype)


def _add_over_channels(grad_kernel: Tensor, grad_sums: Tensor, geometry: Geometry) -> Tensor:
    """Add the gradient [G, O/G, K] of :func:`~.backend.sum_over_channels` to that of the kernel."""
    grad_sums = grad_sums.flip(2) if geometry.transposed else grad_sums
    grad_sums = grad_sums.unflatten(2, geometry.kernel).unsqueeze(1 if geometry.transposed else 2)
    return (group_weight(grad_kernel, geometry) + grad_sums).flatten(0, 1)


def _convolution_backward(
    grad_z, source, kernel, geometry, dtype, grad_scale, need_input, need_kernel
):
    """Gradients of source and kernel in float32 at least, from a convolution in ``dtype``."""
    if grad_scale is not None:
        grad_z = grad_z * grad_scale
    grad_input, grad_kernel, _ = torch.ops.aten.convolution_backward(
        grad_z.to(dtype), _operand(source, dtype), kernel.to(dtype), None, *_steps(geometry),
        (need_input, need_kernel, False),
    )  # fmt: skip
    if need_input:
        grad_input = upcast(grad_input)
        if grad_scale is not None:
            grad_input = grad_input / grad_scale
    if need_kernel:
        grad_kernel = upcast(grad_kernel)
        if grad_scale is not None:
            grad_kernel = grad_kernel / (grad_scale * input_scale(dtype))
    return grad_input, grad_kernel


def _steps(geometry: Geometry) -> tuple:
    """stride, padding, dilation, transposed, output_padding, groups of torch.convolution."""
    pads = [left for left, _ in geometry.pads]
    extra = geometry.output_padding or (0,) * geometry.ndim
    return (
        geometry.stride, pads, geometry.dilation, geometry.transposed, extra, geometry.groups
    )  # fmt: skip


def _per_group(name: str, y: Tensor, other: Tensor, geometry: Geometry, in_place: bool) -> Tensor:
    """'add' or 'mul' of y [N, O, *L] and other [N, G, 1 or O/G, *L]."""
    grouped = group_channels(y, geometry.groups)
    if in_place:
        getattr(grouped, name + '_')(other)
        return y
    return ungroup_channels(getattr(torch, name)(grouped, other))


def _add_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    if bias is None:
        return y
    return y + bias.to(y.dtype).reshape(1, -1, *(1 for _ in y.shape[2:]))
