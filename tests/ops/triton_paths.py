"""Paths of the Triton backend that small aligned tensors do not take.

test_triton.py runs this file; see triton_cases.py.
"""

import pytest
import torch

from nc_plugins import ops

from .cases import Case, tensors
from .test_accuracy import FLOOR
from .triton_cases import (  # the last two are fixtures
    DEVICE,
    FORMATS,
    actual,
    check,
    cotangent,
    full_precision,  # noqa: F401
    round_as_a_gpu,  # noqa: F401
)


@pytest.mark.parametrize('format', FORMATS, ids=str)
def test_large_tiles_of_a_pointwise_convolution(format):
    """With 128 programs or more a program takes 64 pixels."""
    case = Case('nc_conv2d', (8, 6), (8, 8), (1, 1), {})
    check(case, [t.float() for t in tensors(case, batch=128)], 3, FLOOR, format)


@pytest.mark.parametrize('format', FORMATS, ids=str)
def test_few_programs_with_many_channels(format):
    """They take fewer pixels and more channels at a time."""
    case = Case('nc_conv2d', (140, 3), (2, 3), (2, 2), {})
    check(case, [t.float() for t in tensors(case, batch=1)], 3, FLOOR, format)


@pytest.mark.parametrize('kernel', [1, 3])
def test_tf32(kernel):
    """torch rounds products of convolutions to TF32 unless it is told otherwise."""
    case = Case('nc_conv2d', (32, 8), (5, 5), (kernel, kernel), {'padding': kernel // 2})
    given = [t.float() for t in tensors(case, batch=1)]
    exact = actual(case, given)
    torch.backends.cudnn.allow_tf32 = True  # a fixture restores it
    for rounded, wanted in zip(actual(case, given), exact, strict=True):
        assert (rounded - wanted).abs().max() <= 2**-8 * wanted.abs().max()


@pytest.mark.parametrize('kernel', [1, 3])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_pointers_that_are_not_aligned(kernel, dtype):
    """Triton loads 16 bytes at once from a pointer that is a multiple of 16, else less."""
    case = Case('nc_conv2d', (16, 16), (4, 4), (kernel, kernel), {'padding': kernel // 2})
    given = [t.to(DEVICE, dtype) for t in tensors(case, batch=1)]

    def step(leaves):
        leaves = [leaf.detach().requires_grad_() for leaf in leaves]
        out = ops.nc_conv2d(
            *leaves[:3], gain=leaves[3], padding=kernel // 2, eps=0.1, backend='triton'
        )
        return out, *torch.autograd.grad(out, leaves, cotangent(out.shape).to(out))

    shifted = [torch.cat((t.new_zeros(1), t.flatten()))[1:].view(t.shape) for t in given]
    assert all(t.data_ptr() % 16 for t in shifted)
    for result, wanted in zip(step(shifted), step(given), strict=True):
        torch.testing.assert_close(result, wanted)


@pytest.mark.parametrize('kernel', [1, 3])
def test_expanded_bias_and_gain(kernel):
    """Their elements share one address, so their stride is 0."""
    x = torch.randn(2, 4, 5, 5, device=DEVICE)
    weight = torch.randn(6, 4, kernel, kernel, device=DEVICE)
    vectors = [torch.tensor([value], device=DEVICE).expand(6) for value in (0.5, 2.0)]
    bias, gain = vectors
    result = ops.nc_conv2d(x, weight, bias, gain=gain, backend='triton')
    wanted = ops.nc_conv2d(
        x, weight, bias.contiguous(), gain=gain.contiguous(), backend='reference'
    )
    torch.testing.assert_close(result, wanted, rtol=1e-4, atol=1e-4)
