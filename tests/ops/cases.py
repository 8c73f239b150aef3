"""The convolutions that operator tests go through, and how they run one."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch

from nc_plugins import ops
from nc_plugins.ops import reference

# The Triton kernels do not run in float64. triton_accuracy.py and triton_behaviour.py test them.
BACKENDS = [name for name in ops.available_backends() if name not in ('reference', 'triton')]
NAMES = ('output', 'input gradient', 'weight gradient', 'bias gradient', 'gain gradient')


class Case(NamedTuple):
    operator: str
    channels: tuple[int, int]
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    options: dict

    def __str__(self) -> str:
        words = [f'{key}={value}' for key, value in self.options.items()]
        return '-'.join([self.operator[3:], f'{self.channels}', f'k{self.kernel}', *words])


CASES = [
    Case('nc_conv2d', (6, 8), (9, 8), (3, 3), {'padding': 1}),
    Case('nc_conv2d', (6, 8), (9, 8), (1, 1), {}),
    Case('nc_conv2d', (6, 8), (9, 8), (1, 1), {'stride': 2, 'groups': 2}),
    Case('nc_conv2d', (6, 8), (9, 8), (1, 1), {'padding': 1}),
    Case('nc_conv2d', (3, 5), (13, 11), (7, 7), {'stride': 2, 'padding': 3}),
    Case('nc_conv2d', (6, 8), (9, 8), (3, 3), {'stride': (2, 1), 'padding': (0, 2), 'groups': 2}),
    Case('nc_conv2d', (4, 4), (9, 8), (3, 3), {'padding': 2, 'dilation': 2, 'groups': 4}),
    Case('nc_conv2d', (3, 4), (9, 8), (2, 5), {'padding': 'same', 'dilation': (3, 1)}),
    Case('nc_conv2d', (3, 4), (9, 8), (3, 2), {'padding': 'valid', 'stride': 3}),
    Case('nc_conv2d', (3, 4), (5, 4), (2, 2), {'padding': 5, 'stride': 3}),
    Case('nc_conv2d', (1, 2), (5, 4), (5, 4), {}),
    Case('nc_conv1d', (6, 8), (12,), (3,), {'padding': 1, 'stride': 2, 'groups': 2}),
    Case('nc_conv1d', (4, 2), (12,), (4,), {'padding': 'same', 'dilation': 2}),
    Case('nc_conv3d', (4, 6), (5, 6, 4), (3, 2, 3), {'padding': 1, 'stride': (1, 2, 1)}),
    Case('nc_conv3d', (4, 6), (5, 6, 4), (2, 2, 2), {'padding': 'same', 'groups': 2}),
    Case('nc_conv3d', (4, 6), (5, 6, 4), (1, 1, 1), {'stride': 2}),
    Case('nc_conv_transpose2d', (6, 8), (5, 4), (3, 3), {'stride': 2, 'padding': 1}),
    Case('nc_conv_transpose2d', (6, 8), (5, 4), (4, 4), {'stride': 2, 'groups': 2}),
    Case('nc_conv_transpose2d', (6, 4), (5, 4), (3, 3), {'padding': 3, 'dilation': 2}),
    Case('nc_conv_transpose2d', (3, 4), (5, 4), (2, 2), {'stride': 3, 'output_padding': (2, 1)}),
    Case('nc_conv_transpose2d', (4, 6), (5, 4), (3, 2), {'dilation': 3, 'output_padding': 2}),
]


def served(cases: list[Case]):
    """Parametrizes over backend and case, as far as served; test_errors.py has what is not."""
    pairs = [
        pytest.param(backend, case, id=f'{backend}-{case}')
        for backend in BACKENDS
        for case in cases
        if not ('transpose' in case.operator and backend == 'cpu')
    ]
    return pytest.mark.parametrize(('backend', 'case'), pairs)


def tensors(case: Case, batch: int = 2, mean: float = 1.0, seed: int = 0) -> list[torch.Tensor]:
    """Input, weight, bias and gain in float64, each a float32 number so that either can hold it."""
    generator = torch.Generator().manual_seed(seed)
    groups = case.options.get('groups', 1)
    inputs, outputs = case.channels
    if 'transpose' in case.operator:
        weight = (inputs, outputs // groups, *case.kernel)
    else:
        weight = (outputs, inputs // groups, *case.kernel)
    shapes = ((batch, inputs, *case.size), weight, (outputs,), (outputs,))
    x, weight, bias, gain = (torch.randn(shape, generator=generator) for shape in shapes)
    return [t.double() for t in (x + mean, weight, bias, gain)]


def run(backend: str, case: Case, given, cotangent=None, **options) -> list[torch.Tensor]:
    """Output and the gradients of input, weight, bias and gain against a random cotangent."""
    x, weight, bias, gain = (t.detach().clone().requires_grad_() for t in given)
    if backend == 'reference':
        operator = getattr(reference, case.operator)
    else:
        operator = getattr(ops, case.operator)
        options = {**options, 'backend': backend}
    out = operator(x, weight, bias, gain=gain, **case.options, **options)
    if cotangent is None:
        cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    grads = torch.autograd.grad(out, (x, weight, bias, gain), cotangent.to(out.dtype))
    return [out.detach(), *grads]
