"""What normalized convolution equals, known from elsewhere (docs/math.md)."""

import pytest
import torch
import torch.nn.functional as F

from nc_plugins import ops

from .cases import BACKENDS

EVERY = [*BACKENDS, 'reference']  # the definition has to satisfy them too
every = pytest.mark.parametrize('backend', EVERY)
serves_transposed = pytest.mark.parametrize('backend', [b for b in EVERY if b != 'cpu'])


def randn(*shape):
    return torch.randn(*shape, dtype=torch.float64)


@every
def test_one_by_one_is_positional_norm_then_convolution(backend):
    x, weight, bias = randn(2, 6, 5, 4), randn(8, 6, 1, 1), randn(8)
    normed = F.layer_norm(x.movedim(1, -1), (6,)).movedim(-1, 1)
    expected = F.conv2d(normed, weight, bias)
    torch.testing.assert_close(ops.nc_conv2d(x, weight, bias, backend=backend), expected)


@every
def test_kernel_of_the_whole_image_is_layer_norm_then_linear(backend):
    x, weight, bias = randn(3, 4, 5, 6), randn(7, 4, 5, 6), randn(7)
    expected = F.linear(F.layer_norm(x.flatten(1), (120,)), weight.flatten(1), bias)
    actual = ops.nc_conv2d(x, weight, bias, backend=backend)
    torch.testing.assert_close(actual[..., 0, 0], expected)


@every
def test_scaling_and_shifting_the_input_change_nothing(backend):
    x, weight = randn(2, 4, 6, 6), randn(5, 4, 3, 3)
    still = ops.nc_conv2d(x, weight, backend=backend, eps=1e-12)
    for moved in (x * 37, x + 5, x * 0.1 - 2):
        torch.testing.assert_close(ops.nc_conv2d(moved, weight, backend=backend, eps=1e-12), still)
    padded = ops.nc_conv2d(x, weight, padding=1, backend=backend, eps=1e-12)
    scaled = ops.nc_conv2d(x * 37, weight, padding=1, backend=backend, eps=1e-12)
    shifted = ops.nc_conv2d(x + 5, weight, padding=1, backend=backend, eps=1e-12)
    torch.testing.assert_close(scaled, padded)
    assert not torch.allclose(shifted, padded)  # the zeros of the border belong to the patch


@every
def test_adding_a_constant_to_a_filter_changes_nothing(backend):
    x, weight = randn(2, 4, 6, 6), randn(5, 4, 3, 3)
    expected = ops.nc_conv2d(x, weight, padding=1, backend=backend)
    torch.testing.assert_close(ops.nc_conv2d(x, weight + 3, padding=1, backend=backend), expected)


@every
def test_every_sample_is_alone(backend):
    check_every_sample_is_alone(ops.nc_conv2d, backend)


@serves_transposed
def test_every_sample_is_alone_transposed(backend):
    check_every_sample_is_alone(ops.nc_conv_transpose2d, backend)


def check_every_sample_is_alone(operator, backend):
    x, start, cotangent = randn(5, 4, 6, 6), randn(4, 4, 3, 3), randn(5, 4, 6, 6)

    def run(parts):
        weight = start.clone().requires_grad_()
        outs = []
        for piece, back in zip(x.split(parts), cotangent.split(parts), strict=True):
            out = operator(piece, weight, padding=1, backend=backend)
            out.backward(back)
            outs.append(out.detach())
        return torch.cat(outs), weight.grad

    for parts in ([1, 4], [2, 2, 1], [1] * 5):
        for a, e in zip(run(parts), run([5]), strict=True):
            torch.testing.assert_close(a, e)


@every
def test_gain_and_bias_are_an_affine_on_the_output(backend):
    x, weight, bias, gain = randn(2, 4, 6, 6), randn(5, 4, 3, 3), randn(5), randn(5)
    bare = ops.nc_conv2d(x, weight, padding=1, backend=backend)
    expected = bare * gain.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)
    actual = ops.nc_conv2d(x, weight, bias, padding=1, gain=gain, backend=backend)
    torch.testing.assert_close(actual, expected)


@serves_transposed
def test_transposed_with_stride_equal_to_kernel_standardises_pixels(backend):
    """Each output position then sees one input pixel: PositionalNorm, then the plain operator."""
    x, weight = randn(2, 6, 4, 3), randn(6, 5, 2, 2)
    normed = F.layer_norm(x.movedim(1, -1), (6,)).movedim(-1, 1)
    expected = F.conv_transpose2d(normed, weight, stride=2)
    actual = ops.nc_conv_transpose2d(x, weight, stride=2, backend=backend)
    torch.testing.assert_close(actual, expected)


@serves_transposed
def test_transposed_with_stride_one_is_a_convolution_inside(backend):
    x, weight = randn(2, 4, 7, 7), randn(4, 5, 3, 3)
    actual = ops.nc_conv_transpose2d(x, weight, padding=2, backend=backend)
    expected = ops.nc_conv2d(x, weight.flip(2, 3).transpose(0, 1), backend=backend)
    torch.testing.assert_close(actual, expected)
