"""Direct calls of torch.ops.nc_plugins check every argument before they read or write memory."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nc_plugins.ops import cpu

pytestmark = pytest.mark.skipif(
    cpu.missing() is not None, reason='the C++ extension is not built (test_cpu.py fails then)'
)

ROOT = Path(__file__).parents[2]
LARGE = 2**40


def arguments() -> dict:
    """A correct call: input [2, 4, 6, 5], weight [6, 2, 3, 2], two groups, output [2, 6, 4, 3]."""
    return {
        'input': torch.randn(2, 4, 6, 5),
        'weight': torch.randn(6, 2, 3, 2),
        'bias': torch.randn(6),
        'gain': torch.randn(6),
        'stride': [2, 2],
        'pads': [1, 1, 0, 1],
        'dilation': [1, 1],
        'groups': 2,
        'eps': 1e-5,
        'center': True,
        'scale': True,
    }


def forward(**changes):
    return torch.ops.nc_plugins.nc_conv_forward(**{**arguments(), **changes})


def backward(**changes):
    given = arguments()
    out, mean, mean_correction, rstd = forward(**given)
    given |= {
        'grad': torch.randn_like(out),
        'mean': mean,
        'mean_correction': mean_correction,
        'rstd': rstd,
        **dict.fromkeys(('need_input', 'need_weight', 'need_bias', 'need_gain'), True),
    }
    del given['bias'], given['eps']
    return torch.ops.nc_plugins.nc_conv_backward(**{**given, **changes})


def test_a_correct_call_passes():
    out, *maps = forward()
    assert out.shape == (2, 6, 3, 3)
    assert [m.shape for m in maps] == [(2, 2, 3, 3)] * 3
    assert [g.shape for g in backward()] == [(2, 4, 6, 5), (6, 2, 3, 2), (6,), (6,)]


# What forward and backward share: input, weight, gain and the integers.
SHARED = [
    ('input', torch.randn(4, 6), r'input has shape \[4, 6\], wanted \[N, C, \*size\]'),
    ('input', torch.randn(2, 4, 3, 3, 3, 3), 'with 1 to 3 spatial axes'),
    ('input', torch.randn(2, 4, 6, 5).half(), 'input has dtype Half, wanted Float or Double'),
    ('input', torch.ones(2, 4, 6, 5, dtype=torch.int64), 'input has dtype Long'),
    ('input', torch.ones(2, 4, 6, 5, dtype=torch.complex64), 'input has dtype ComplexFloat'),
    ('input', torch.randn(2, 4, 6, 5, device='meta'), 'is on cpu, wanted meta as input is'),
    ('input', None, 'input is None, wanted a Tensor'),
    ('input', torch.randn(2, 4, 6, 5).double(), 'weight has dtype Float, wanted Double'),
    ('input', torch.randn(2, 3, 6, 5), 'groups is 2, wanted a divisor of the 3 channels of input'),
    ('input', torch.randn(2, 0, 6, 5), 'groups is 2, wanted a divisor of the 0 channels'),
    ('input', torch.randn(2, 6, 6, 5), 'weight has 2 input channels, wanted 3'),
    ('input', torch.randn(2, 4, 0, 5), 'empty along spatial axis 0: the kernel covers 3 pixels'),
    ('input', torch.randn(2, 4, 6, 0), 'the padded input has 1'),
    ('weight', torch.randn(6, 2, 3), r'weight has shape \[6, 2, 3\], wanted 4 axes'),
    ('weight', torch.randn(6, 2, 3, 2).double(), 'weight has dtype Double, wanted Float'),
    ('weight', torch.randn(6, 2, 3, 2, device='meta'), 'weight is on meta, wanted cpu as input is'),
    ('weight', None, 'weight is None, wanted a Tensor'),
    ('weight', torch.randn(5, 2, 3, 2), 'groups is 2, wanted a divisor of the 5 output channels'),
    ('weight', torch.randn(6, 4, 3, 2), 'weight has 4 input channels, wanted 2'),
    ('weight', torch.randn(6, 2, 0, 2), r'the kernel size of weight is \[0, 2\]'),
    ('weight', torch.randn(6, 2, 9, 2), 'empty along spatial axis 0: the kernel covers 9 pixels'),
    ('weight', torch.randn(1).expand(6, 2, 3, LARGE), 'the kernel size of weight is'),
    ('weight', torch.randn(0, 2, 3, LARGE), 'the kernel size of weight is'),
    ('gain', torch.randn(5), r'gain has shape \[5\], wanted \[6\]'),
    ('gain', torch.randn(6, 1), r'gain has shape \[6, 1\], wanted \[6\]'),
    ('gain', torch.randn(6).double(), 'gain has dtype Double, wanted Float'),
    ('gain', torch.randn(6, device='meta'), 'gain is on meta, wanted cpu as input is'),
    ('stride', [], r'stride is \[\], wanted 2 integers'),
    ('stride', [1], r'stride is \[1\], wanted 2 integers'),
    ('stride', [2, 0], r'stride is \[2, 0\], wanted integers from 1 to 2147483647'),
    ('stride', [-1, 1], r'stride is \[-1, 1\], wanted integers from 1'),
    ('stride', [1, LARGE], 'stride is .* wanted integers from 1 to 2147483647'),
    ('pads', [1, 0], r'pads is \[1, 0\], wanted 4 integers'),
    ('pads', [1, 1, -1, 1], r'pads is \[1, 1, -1, 1\], wanted integers from 0'),
    ('pads', [0, 0, 2**63 - 1, 2**63 - 1], 'wanted integers from 0 to 2147483647'),
    ('pads', [2**31 - 1] * 4, r'wanted fewer than 2\^56'),
    ('dilation', [1, 1, 1], r'dilation is \[1, 1, 1\], wanted 2 integers'),
    ('dilation', [0, 1], r'dilation is \[0, 1\], wanted integers from 1'),
    ('dilation', [1, 7], 'empty along spatial axis 1: the kernel covers 8 pixels'),
    ('dilation', [2**31 - 1, 1], 'the kernel covers 4294967295 pixels'),
    ('dilation', [2**63 - 1, 1], 'dilation is .* wanted integers from 1 to 2147483647'),
    ('groups', 0, 'groups is 0, wanted at least 1'),
    ('groups', -2, 'groups is -2, wanted at least 1'),
    ('groups', 3, 'groups is 3, wanted a divisor of the 4 channels of input'),
    ('groups', 1, r'weight has 2 input channels, wanted 4 \(input has 4 channels, groups is 1\)'),
    ('groups', 2**62, 'wanted a divisor of the 4 channels of input'),
]


@pytest.mark.parametrize('call', [forward, backward])
@pytest.mark.parametrize(('name', 'value', 'message'), SHARED)
def test_a_malformed_argument_raises(call, name, value, message):
    with pytest.raises(RuntimeError, match=message):
        call(**{name: value})


FORWARD = [
    ('bias', torch.randn(7), r'bias has shape \[7\], wanted \[6\]'),
    ('bias', torch.randn(()), r'bias has shape \[\], wanted \[6\]'),
    ('bias', torch.randn(6).double(), 'bias has dtype Double, wanted Float'),
    ('bias', torch.randn(6, device='meta'), 'bias is on meta, wanted cpu as input is'),
    ('eps', 0.0, 'eps is 0, wanted a number above 0'),
    ('eps', -1e-5, 'eps is -1e-05, wanted a number above 0'),
    ('eps', float('nan'), 'eps is nan, wanted a number above 0'),
]


@pytest.mark.parametrize(('name', 'value', 'message'), FORWARD)
def test_a_malformed_argument_of_forward_raises(name, value, message):
    with pytest.raises(RuntimeError, match=message):
        forward(**{name: value})


MAPS = ['mean', 'mean_correction', 'rstd']


BACKWARD = [
    ('grad', torch.randn(2, 6, 3, 4), r'grad has shape \[2, 6, 3, 4\], wanted \[2, 6, 3, 3\]'),
    ('grad', torch.randn(1, 6, 3, 3), r'grad has shape \[1, 6, 3, 3\]'),
    ('grad', torch.randn(2, 6, 9), r'grad has shape \[2, 6, 9\]'),
    ('grad', torch.randn(2, 6, 3, 3).double(), 'grad has dtype Double, wanted Float'),
    ('grad', torch.randn(2, 6, 3, 3, device='meta'), 'grad is on meta, wanted cpu as input is'),
    ('grad', None, 'grad is None, wanted a Tensor'),
    *((m, torch.randn(2, 1, 3, 3), rf'{m} has shape \[2, 1, 3, 3\], wanted') for m in MAPS),
    *((m, torch.randn(2, 2, 3), rf'{m} has shape \[2, 2, 3\], wanted') for m in MAPS),
    *((m, torch.randn(0), rf'{m} has shape \[0\], wanted') for m in MAPS),
    *((m, torch.randn(2, 2, 3, 3).double(), rf'{m} has dtype Double') for m in MAPS),
    *((m, torch.randn(2, 2, 3, 3, device='meta'), f'{m} is on meta, wanted') for m in MAPS),
    *((m, None, f'{m} is None, wanted a Tensor') for m in MAPS),
]


@pytest.mark.parametrize(('name', 'value', 'message'), BACKWARD)
def test_a_malformed_argument_of_backward_raises(name, value, message):
    with pytest.raises(RuntimeError, match=message):
        backward(**{name: value})


@pytest.mark.parametrize('name', ['input', 'weight', 'bias', 'gain'])
def test_a_sparse_tensor_raises(name):
    with pytest.raises(RuntimeError, match="from the 'SparseCPU' backend"):
        forward(**{name: arguments()[name].to_sparse()})


def count_refused_calls() -> int:
    """Make every malformed call; the number of those that raised RuntimeError."""
    calls = [(call, case) for call in (forward, backward) for case in SHARED]
    calls += [(forward, case) for case in FORWARD] + [(backward, case) for case in BACKWARD]
    refused = 0
    for call, (name, value, _) in calls:
        try:
            call(**{name: value})
        except RuntimeError:
            refused += 1
    return refused


@pytest.mark.slow
def test_no_malformed_call_damages_the_process():
    """In a process of its own: a write to memory of others may show as a crash at its end."""
    program = f'from {__name__} import count_refused_calls as count; print(count())'
    command = [sys.executable, '-W', 'ignore', '-c', program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 2 * len(SHARED) + len(FORWARD) + len(BACKWARD)


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
def test_saved_maps_and_grad_may_have_any_strides(layout):
    """The same gradients from a broadcast grad and strided maps as from contiguous ones."""
    out, *maps = forward()
    grad = torch.randn(1, 6, 1, 1)
    changes = dict(zip(MAPS, maps, strict=True))
    changes['input'] = arguments()['input'].contiguous(memory_format=layout)
    given = {name: value for name, value in arguments().items() if name in ('weight', 'gain')}
    expected = backward(**changes, **given, grad=grad.expand_as(out).contiguous())
    strided = {name: changes[name].transpose(1, 3).contiguous().transpose(1, 3) for name in MAPS}
    actual = backward(**{**changes, **strided}, **given, grad=grad.expand_as(out))
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


def test_an_empty_batch_and_no_output_channels_are_legal():
    out, *maps = forward(input=torch.randn(0, 4, 6, 5))
    assert out.shape == (0, 6, 3, 3)
    assert all(m.shape == (0, 2, 3, 3) for m in maps)
    empty = dict(zip(MAPS, maps, strict=True))
    grads = backward(input=torch.randn(0, 4, 6, 5), grad=out, **empty)
    assert grads[0].shape == (0, 4, 6, 5)
    assert all((g == 0).all() for g in grads[1:])

    nothing = {'weight': torch.randn(0, 2, 3, 2), 'gain': torch.randn(0)}
    out, *maps = forward(bias=None, **nothing)
    assert out.shape == (2, 0, 3, 3)
    assert all((m == 0).all() for m in maps)
    grads = backward(grad=out, **nothing, **dict(zip(MAPS, maps, strict=True)))
    assert (grads[0] == 0).all()


def test_an_input_of_padding_alone_gives_the_bias():
    """No pixel at all along one axis: every patch is constant zero."""
    x = torch.randn(2, 4, 0, 5)
    pads = [2, 2, 0, 0]
    out, mean, mean_correction, rstd = forward(input=x, pads=pads, bias=torch.arange(6.0))
    assert torch.equal(out, torch.arange(6.0).view(1, 6, 1, 1).expand(2, 6, 1, 2))
    saved = {'mean': mean, 'mean_correction': mean_correction, 'rstd': rstd}
    grads = backward(input=x, pads=pads, grad=torch.randn_like(out), **saved)
    assert grads[0].shape == x.shape
    assert (grads[1] == 0).all()


@pytest.mark.parametrize('stride', [2**31 - 1, 6])
def test_a_stride_larger_than_the_input_allocates_no_more_than_the_input(stride):
    """One output position: the stride then has no effect."""
    pads = [0, 0, 0, 0]
    given = {name: torch.ones_like(arguments()[name]) for name in ('weight', 'bias', 'gain')}
    x = torch.randn(2, 4, 6, 5)
    expected = forward(input=x, stride=[5, 5], pads=pads, **given)
    actual = forward(input=x, stride=[stride, stride], pads=pads, **given)
    assert actual[0].shape == (2, 6, 1, 1)
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))
