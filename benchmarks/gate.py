"""No number is worth anything for an operator that computes something else: the gate before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import systems
import torch
from cases import Case, Conv, Model
from systems import Options

from nc_plugins.ops import reference

PATCHES = 8 * 2**20  # values of an im2col matrix that is made here, in float64
# Largest deviation from float64 over the largest entry. A layer that is 1 % off must not pass, so
# bfloat16, which is too coarse to tell, is checked in float32 besides.
TOLERANCE = {'float32': 1e-4, 'bfloat16': 8 * torch.finfo(torch.bfloat16).eps}


class WrongResult(Exception):
    """A system that claims to be NC computes something else."""


def gate(
    cases: Sequence[Case], wanted: Sequence[str], options: Options, say: Callable[[str], None]
) -> None:
    """Compare every system that claims to be NC with the definition, output and all gradients.

    Raises:
        WrongResult: one deviates; the message says which, where and by how much.
    """
    convs = []
    for case in cases:
        convs += case.convolutions if isinstance(case, Model) else [case]
    shapes = dict.fromkeys(replace(c.shrunk(PATCHES), group='', count=1) for c in convs)
    for i, conv in enumerate(shapes, start=1):
        say(f'gate {i}/{len(shapes)}: {conv.name[1:]}')
        truth = _definition(conv, options.device)
        for dtype in dict.fromkeys(('float32', options.dtype)):
            there = replace(options, dtype=dtype)
            for name in systems.systems_of(conv, wanted, there):
                if systems.claims_nc(name):
                    _compare(name, conv, there, truth)


def _compare(name: str, conv: Conv, options: Options, truth: dict[str, torch.Tensor]) -> None:
    allowed = TOLERANCE[options.dtype]
    for key, value in _results(name, conv, options, truth).items():
        expected = truth[key.removeprefix('inference ')]
        error = ((value - expected).abs().max() / expected.abs().max()).item()
        if not error <= allowed:  # NaN too
            raise WrongResult(
                f'{name} is wrong on {conv.name[1:]} in {options.dtype}, {options.layout}: its '
                f'{key} deviates from the definition by {error:.1e} of the largest entry, allowed '
                f'are {allowed:.1e}; nothing was measured'
            )


def _definition(conv: Conv, device: str) -> dict[str, torch.Tensor]:
    """Tensors for the case, float32 numbers in float64, and what the definition makes of them."""
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
    block = options.place(block)
    leaves = {'input': options.batch(conv, truth['input']).requires_grad_(), **parameters}
    # TF32 is a choice about convolutions, and not what is asked here.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        with options.autocast():
            out = block(leaves['input'])
        grads = torch.autograd.grad(out, list(leaves.values()), truth['cotangent'].to(out))
        block.eval()
        with torch.no_grad(), options.autocast():
            inference = block(leaves['input'])
    gradients = {f'gradient of {key}': grad for key, grad in zip(leaves, grads, strict=True)}
    return {'output': out.detach(), 'inference output': inference, **gradients}
