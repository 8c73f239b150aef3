"""Correctness check before any measurement: wrong results are not timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import systems
import torch
from cases import Case, Conv, Model
from systems import Options

from nc_plugins.ops import reference

PATCHES = 8 * 2**20  # largest im2col matrix to build here, in float64 values
# Largest deviation from float64, relative to the largest entry. A result that is 1 % off must fail.
# The tolerance of bfloat16 is too coarse for that, so it is checked in float32 too.
TOLERANCE = {'float32': 1e-4, 'bfloat16': 8 * torch.finfo(torch.bfloat16).eps}


class WrongResult(Exception):
    """An NC system does not compute normalized convolution."""


def gate(
    cases: Sequence[Case], wanted: Sequence[str], options: Options, say: Callable[[str], None]
) -> None:
    """Compare output and gradients of every NC system with the definition.

    Raises:
        WrongResult: a system deviates. The message has its name, the tensor and the deviation.
    """
    convs = []
    for case in cases:
        convs += case.convolutions if isinstance(case, Model) else [case]
    shapes = dict.fromkeys(replace(c.shrunk(PATCHES), group='', count=1) for c in convs)
    for i, conv in enumerate(shapes, start=1):
        say(f'gate {i}/{len(shapes)}: {conv.name[1:]}')
        truth = _definition(conv, options.device)
        for dtype in dict.fromkeys(('float32', options.dtype)):
            conditions = replace(options, dtype=dtype)
            for name in systems.systems_of(conv, wanted, conditions):
                if systems.claims_nc(name):
                    _compare(name, conv, conditions, truth)


def _compare(name: str, conv: Conv, options: Options, truth: dict[str, torch.Tensor]) -> None:
    allowed = TOLERANCE[options.dtype]
    for key, value in _results(name, conv, options, truth).items():
        expected = truth[key.removeprefix('inference ')]
        error = ((value - expected).abs().max() / expected.abs().max()).item()
        if not error <= allowed:  # NaN must fail too
            raise WrongResult(
                f'{name} is wrong on {conv.name[1:]} in {options.dtype}, {options.layout}: its '
                f'{key} deviates from the definition by {error:.1e} of the largest entry, '
                f'{allowed:.1e} is allowed; nothing was measured'
            )


def _definition(conv: Conv, device: str) -> dict[str, torch.Tensor]:
    """Random inputs that float32 represents exactly, and the results in float64."""
    generator = torch.Generator().manual_seed(2)
    size = (conv.outputs, conv.inputs, conv.kernel, conv.kernel)
    weight = torch.randn(size, generator=generator) / (conv.inputs * conv.kernel**2) ** 0.5
    if conv.transposed:
        weight = weight.transpose(0, 1).contiguous()
    x = torch.randn(conv.batch, conv.inputs, conv.height, conv.width, generator=generator) + 0.5
    gain, bias = (torch.randn(conv.outputs, generator=generator) for _ in range(2))
    leaves = [t.to(device, torch.float64).requires_grad_() for t in (x, weight, gain, bias)]
    x, weight, gain, bias = leaves
    if conv.transposed:
        out = reference.nc_conv_transpose2d(
            x, weight, bias, conv.stride, conv.padding, 1, gain=gain, dilation=conv.dilation
        )
    else:
        steps = (conv.stride, conv.padding, conv.dilation)
        out = reference.nc_conv2d(x, weight, bias, *steps, gain=gain)
    cotangent = torch.randn(out.shape, generator=generator).to(out)
    grads = torch.autograd.grad(out, leaves, cotangent)
    names = ('input', 'weight', 'gain', 'bias')
    return {
        **{name: leaf.detach() for name, leaf in zip(names, leaves, strict=True)},
        **{f'gradient of {name}': grad for name, grad in zip(names, grads, strict=True)},
        'cotangent': cotangent,
        'output': out.detach(),
    }


def _results(name: str, conv: Conv, options: Options, truth) -> dict[str, torch.Tensor]:
    block = systems.layer(name, conv)
    parameters = {'weight': block[0].weight}
    parameters['gain'], parameters['bias'] = systems.affine(block)
    with torch.no_grad():
        for key, parameter in parameters.items():
            parameter.copy_(truth[key])
    block = systems.SYSTEMS[name].finish(options.place(block))
    leaves = {'input': options.batch(conv, truth['input']).requires_grad_(), **parameters}
    results = {}
    # TF32 is a choice of precision in convolutions, and it is not tested here.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        if systems.trains(name):
            with options.autocast():
                out = block(leaves['input'])
            grads = torch.autograd.grad(out, list(leaves.values()), truth['cotangent'].to(out))
            results['output'] = out.detach()
            for key, grad in zip(leaves, grads, strict=True):
                results[f'gradient of {key}'] = grad
        block.eval()
        with torch.no_grad(), options.autocast():
            results['inference output'] = block(leaves['input'])
    return results
