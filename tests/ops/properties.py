"""Random convolutions for the property tests, and an im2col in float64 written for them alone.

The truth shares no code with the package: not the definition in ops/reference.py, nor Geometry. It
finds the input pixel under each tap of each output position by integer arithmetic, axis by axis.
Tolerances are those of test_nc_conv.py in float64 and of test_accuracy.py in the other dtypes.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from hypothesis import assume
from hypothesis import strategies as st

from nc_plugins import ops

from .test_accuracy import FLOOR, TOLERANCE

OPERATORS = {'nc_conv1d': 1, 'nc_conv2d': 2, 'nc_conv3d': 3, 'nc_conv_transpose2d': 2}
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
# How a tensor lies in memory: see arrange().
LAYOUTS = ('contiguous', 'channels_last', 'last_axis_sliced', 'axes_reversed', 'image_permuted')
EPS = 1e-5


class Call(NamedTuple):
    """One call of an operator. hypothesis prints it if it fails."""

    operator: str
    dtype: torch.dtype
    batch: int
    groups: int
    channels: int  # input channels of a group
    outputs: int  # output channels of a group
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    output_padding: tuple[int, ...] | None
    bias: bool
    gain: bool
    layouts: tuple[str, str, str]  # of input, weight and the gradient of the output
    mean: float  # of the input, whose standard deviation is 1
    seed: int

    @property
    def transposed(self) -> bool:
        return self.output_padding is not None


@st.composite
def calls(draw, operators, dtypes, small=False):
    """Calls that are legal. ``small`` ones have few programs for Triton's interpreter."""
    operator, dtype = draw(st.sampled_from(operators)), draw(st.sampled_from(dtypes))
    axes, transposed = OPERATORS[operator], operator == 'nc_conv_transpose2d'

    def steps(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(axes))

    kernel, stride, dilation = steps(1, 4 if axes < 3 else 3), steps(1, 3), steps(1, 3)
    padding, output_padding = steps(0, 3), None
    if transposed:
        output_padding = steps(0, 2)
        limits = zip(output_padding, stride, dilation, strict=True)
        output_padding = tuple(min(extra, max(s, d) - 1) for extra, s, d in limits)
    elif draw(st.integers(0, 3)) == 0:
        padding = 'same' if max(stride) == 1 else 'valid'
    size = []  # from the smallest one that gives an output
    for axis in range(axes):
        reach = dilation[axis] * (kernel[axis] - 1)
        pads = reach if padding == 'same' else 0 if padding == 'valid' else 2 * padding[axis]
        least = reach + 1 - pads
        if transposed:
            least = 1 - (reach + output_padding[axis] - pads) // stride[axis]
        size.append(max(1, least) + draw(st.integers(0, 3 if small or axes == 3 else 7)))
    call = Call(
        operator,
        dtype,
        batch=draw(st.integers(1, 2 if small else 3)),
        groups=draw(st.integers(1, 2 if small else 4)),
        channels=draw(st.integers(1, 6)),
        outputs=draw(st.integers(1, 2 if small else 4)),
        size=tuple(size),
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        output_padding=output_padding,
        bias=draw(st.booleans()),
        gain=draw(st.booleans()),
        layouts=tuple(draw(st.sampled_from(LAYOUTS)) for _ in range(3)),
        mean=draw(st.sampled_from(tuple(TOLERANCE) if dtype == torch.float32 else (0.0, 1.0))),
        seed=draw(st.integers(0, 2**16)),
    )
    index, _ = taps(call)
    assume(call.channels * (index > -2).sum(0).max() > 1)  # one value has no variance
    if dtype != torch.float64:
        # The normalised patch (a, b), or (a, 0), does not depend on the size of a and b. So its
        # gradient is 0, the difference of two rounded numbers of any size.
        pixels = (index >= 0).sum(0)
        assume((pixels > 0).any() and call.channels * pixels[pixels > 0].min() >= 4)
    return call


def taps(call: Call) -> tuple[torch.Tensor, tuple[int, ...]]:
    """The input pixel under tap k of output position l, [K, L], and the size of the output.

    -1 is a padded zero. -2 is no value at all, as a transposed convolution has them.
    """
    index, outputs = torch.zeros(1, 1, dtype=torch.int64), []
    for axis, n in enumerate(call.size):
        k, s, d = call.kernel[axis], call.stride[axis], call.dilation[axis]
        reach = d * (k - 1)
        if call.padding == 'same':
            left, right = reach // 2, reach - reach // 2
        else:
            left = right = 0 if call.padding == 'valid' else call.padding[axis]
        tap = torch.arange(k)[:, None]
        if call.transposed:
            length = (n - 1) * s - left - right + reach + call.output_padding[axis] + 1
            shifted = torch.arange(length)[None] + left - tap * d
            pixel, outside = torch.where(shifted % s == 0, shifted // s, -1), -2
        else:
            length = (n + left + right - reach - 1) // s + 1
            pixel, outside = torch.arange(length)[None] * s - left + tap * d, -1
        outputs.append(length)
        inside = ((pixel >= 0) & (pixel < n))[None, :, None]
        combined = index[:, None, :, None] * n + pixel[None, :, None]
        combined = torch.where(inside & (index >= 0)[:, None, :, None], combined, outside)
        index = combined.flatten(2).flatten(0, 1)
    return index, tuple(outputs)


def im2col(call: Call, x, weight, bias, gain) -> torch.Tensor:
    """The output by the paper's equations. Statistics are in float32 at least."""
    index, size = taps(call)
    present = (index > -2).expand(call.channels, -1, -1).flatten(0, 1)  # [C * K, L]
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    pixels = torch.cat((x.flatten(2), x.new_zeros(*x.shape[:2], 1)), 2).to(wide)
    patches = pixels[..., index.clamp(min=-1)]  # [N, G * C, K, L]; -1 is the zero at the end
    patches = patches.unflatten(1, (call.groups, call.channels)).flatten(2, 3)
    count = present.sum(0).clamp(min=1)
    mean = patches.sum(2, keepdim=True) / count
    deviations = torch.where(present, patches - mean, 0)
    var = deviations.square().sum(2, keepdim=True) / count
    patches = (deviations / (var + EPS).sqrt()).to(x.dtype)
    filters = weight.transpose(0, 1) if call.transposed else weight
    if call.transposed:  # [O, G * C, *k]: every group has the same O
        filters = filters.unflatten(1, (call.groups, call.channels)).movedim(1, 0).flatten(3)
    else:
        filters = filters.unflatten(0, (call.groups, call.outputs)).flatten(3)  # [G, O, C, K]
    out = torch.matmul(filters.flatten(2), patches).flatten(1, 2).unflatten(2, size)
    shape = (-1, *(1 for _ in size))
    out = out if gain is None else out * gain.view(shape)
    return out if bias is None else out + bias.view(shape)


def arrange(x: torch.Tensor, layout: str) -> torch.Tensor:
    """The same values in another place in memory."""
    if layout == 'channels_last':
        return x.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == 'last_axis_sliced':
        return x.repeat_interleave(2, -1)[..., ::2]
    if layout == 'axes_reversed':
        return x.permute(*reversed(range(x.dim()))).contiguous().permute(*reversed(range(x.dim())))
    if layout == 'image_permuted' and x.shape[0] == 1:  # its batch stride is not a whole sample
        return x[0].movedim(0, -1).contiguous().movedim(-1, 0).unsqueeze(0)
    return x.contiguous()


def random_tensors(call: Call, draw: int = 0) -> list[torch.Tensor | None]:
    """Input, weight, bias, gain and the gradient of the output, in the dtype of the call."""
    generator = torch.Generator().manual_seed(call.seed + draw)
    inputs, outputs = call.groups * call.channels, call.groups * call.outputs
    weight = (inputs, call.outputs) if call.transposed else (outputs, call.channels)
    shapes = (
        (call.batch, inputs, *call.size),
        (*weight, *call.kernel),
        (outputs,),
        (outputs,),
        (call.batch, outputs, *taps(call)[1]),
    )
    x, weight, bias, gain, grad = (torch.randn(shape, generator=generator) for shape in shapes)
    bias, gain = bias if call.bias else None, gain if call.gain else None
    tensors = (x + call.mean, weight, bias, gain, grad)
    return [None if t is None else t.to(call.dtype) for t in tensors]


def results(operator, tensors) -> list[torch.Tensor]:
    """Output and gradients of ``operator(x, weight, bias, gain)``."""
    *given, grad = tensors
    leaves = [None if t is None else t.detach().requires_grad_() for t in given]
    out = operator(*leaves)
    wanted = [leaf for leaf in leaves if leaf is not None]
    return [out.detach(), *torch.autograd.grad(out, wanted, grad)]


def run(backend: str, call: Call, x, weight, bias, gain) -> torch.Tensor:
    """The output of a backend of the package."""
    steps = {'stride': call.stride, 'padding': call.padding, 'dilation': call.dilation}
    if call.transposed:
        steps['output_padding'] = call.output_padding
    operator = getattr(ops, call.operator)
    return operator(x, weight, bias, groups=call.groups, gain=gain, backend=backend, **steps)


def check(backend: str, call: Call, device: str = 'cpu') -> None:
    """Compare output and gradients of a backend with the truth in float64.

    In other dtypes the errors are the largest of several draws, with at least 16 output positions
    together: a result may be a single number, and the definition's error is then small by chance.
    """
    names = ['output', 'input gradient', 'weight gradient']
    names += ['bias gradient'] * call.bias + ['gain gradient'] * call.gain
    places = (*call.layouts[:2], 'contiguous', 'contiguous', call.layouts[2])
    exact = call.dtype == torch.float64
    positions = call.batch * taps(call)[0].shape[1]
    errors, yardsticks, scales = ([[] for _ in names] for _ in range(3))
    for draw in range(1 if exact else max(3, 16 // positions)):
        tensors = random_tensors(call, draw)
        given = [
            None if t is None else arrange(t.to(device), layout)
            for t, layout in zip(tensors, places, strict=True)
        ]
        truth = results(partial(im2col, call), [None if t is None else t.double() for t in tensors])
        actual = results(partial(run, backend, call), given)
        definition = truth
        if backend == 'reference' and not exact:
            definition = results(partial(im2col, call), tensors)
        elif not exact:
            definition = results(partial(run, 'reference', call), tensors)
        for i, (name, t, d, a) in enumerate(zip(names, truth, definition, actual, strict=True)):
            assert a.shape == t.shape and a.dtype == call.dtype, name
            errors[i].append((a.cpu() - t).abs().max().item())
            yardsticks[i].append((d - t).abs().max().item())
            scales[i].append(t.abs().max().item())
    for name, error, yardstick, scale in zip(names, errors, yardsticks, scales, strict=True):
        if exact:
            allowed = 1e-10 * max(*scale, 1)
        elif call.dtype == torch.float32:
            allowed = TOLERANCE[call.mean] * max(yardstick) + FLOOR * max(scale)
        else:
            allowed = 3 * max(yardstick) + torch.finfo(call.dtype).eps * max(scale)
        worst = max(error, key=lambda e: (e != e, e))  # NaN is the largest
        assert worst <= allowed, f'{name}: error {worst:.1e}, allowed {allowed:.1e}'
