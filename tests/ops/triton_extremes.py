"""test_extremes.py on the Triton backend. test_triton.py runs this file; see triton_cases.py."""

import pytest
import torch

from .test_extremes import check_half, gradients
from .triton_cases import DEVICE, full_precision, round_as_a_gpu  # noqa: F401

kernels = pytest.mark.parametrize('kernel', [1, 3])


@kernels
def test_large_gradients_of_constant_patches_in_float16(kernel):
    """rstd is 316 there, so the gradient of the plain convolution's output exceeds 65504."""
    x = torch.randn(1, 6, 7, 7).half()
    x[:, :, :5] = 0.5
    weight = (torch.randn(4, 6, kernel, kernel) * 4 / 3000).half()
    cotangent = torch.randn(1, 4, 8 - kernel, 8 - kernel) * 3000
    check_half('triton', x, weight, cotangent, DEVICE)


@kernels
@pytest.mark.parametrize('largest', [3e4, 65504.0])
def test_large_inputs_in_float16(kernel, largest):
    x = torch.randn(1, 6, 5, 5).clamp(-1, 1).mul(largest).half()
    weight = torch.randn(4, 6, kernel, kernel).half()
    check_half('triton', x, weight, torch.randn(1, 4, 6 - kernel, 6 - kernel), DEVICE)


def test_small_gradients_in_float16_keep_their_digits():
    x, weight = torch.randn(1, 16, 5, 5).half(), torch.randn(4, 16, 3, 3).half()
    check_half('triton', x, weight, torch.randn(1, 4, 3, 3) * 1e-3, DEVICE)


@kernels
def test_a_variance_beyond_float32_gives_zero(kernel):
    x = torch.randn(1, 70, 4, 4, device=DEVICE) * 1e20
    weight = torch.randn(4, 70, kernel, kernel, device=DEVICE)
    cotangent = torch.randn(1, 4, 5 - kernel, 5 - kernel, device=DEVICE)
    for result in gradients('triton', x, weight, cotangent):
        assert (result == 0).all()


@pytest.mark.parametrize(('kernel', 'stride'), [(2, 4), (3, 2)])
def test_a_nan_in_a_pixel_that_no_patch_contains_changes_nothing(kernel, stride):
    x = torch.randn(1, 8, 8, 8, device=DEVICE)
    weight = torch.randn(4, 8, kernel, kernel, device=DEVICE)
    size = (8 - kernel) // stride + 1
    cotangent = torch.randn(1, 4, size, size, device=DEVICE)
    expected = gradients('triton', x, weight, cotangent, stride=stride)
    x[:, :, -1, -1] = torch.nan
    for a, e in zip(
        gradients('triton', x, weight, cotangent, stride=stride), expected, strict=True
    ):
        torch.testing.assert_close(a, e)
