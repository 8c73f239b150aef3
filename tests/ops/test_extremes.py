"""Inputs at the ends of a dtype's range, pixels that no patch contains, and odd strides."""

import pytest
import torch

from nc_plugins import ops

from .cases import BACKENDS, NAMES, Case, run, tensors

every_backend = pytest.mark.parametrize('backend', BACKENDS)
NC = {'nc_conv2d': ops.nc_conv2d, 'nc_conv_transpose2d': ops.nc_conv_transpose2d}


def gradients(backend, x, weight, cotangent, operator='nc_conv2d', **options):
    """Output and gradients of input and weight."""
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    out = NC[operator](x, weight, **options, backend=backend)
    return [out.detach(), *torch.autograd.grad(out, (x, weight), cotangent.to(out.dtype))]


def check_half(backend, x, weight, cotangent, device='cpu', **options):
    """By the rule of test_accuracy.py for half precision."""
    truth = gradients('reference', x.double(), weight.double(), cotangent, **options)
    definition = gradients('reference', x, weight, cotangent, **options)
    given = (t.to(device) for t in (x, weight, cotangent))
    actual = [result.cpu() for result in gradients(backend, *given, **options)]
    for name, t, d, a in zip(NAMES, truth, definition, actual, strict=False):
        error, yardstick = ((r - t).abs().max() for r in (a, d))
        assert error <= 3 * yardstick + torch.finfo(x.dtype).eps * t.abs().max(), name


@every_backend
@pytest.mark.parametrize('scale', [300.0, 3000.0])
@pytest.mark.parametrize('kernel', [1, 3])
def test_large_gradients_of_constant_patches_in_float16(backend, scale, kernel):
    """rstd is 316 there, so the gradient of the plain convolution's output exceeds 65504."""
    x = torch.randn(2, 6, 9, 9).half()
    x[:, :, :5] = 0.5
    weight = (torch.randn(8, 6, kernel, kernel) * 4 / scale).half()
    size = 10 - kernel
    check_half(backend, x, weight, torch.randn(2, 8, size, size) * scale)


@every_backend
@pytest.mark.parametrize('center', [True, False])
@pytest.mark.parametrize('largest', [3e3, 3e4, 65504.0])
def test_large_inputs_in_float16(backend, largest, center):
    x = torch.randn(2, 6, 9, 9).clamp(-1, 1).mul(largest).half()
    weight = torch.randn(8, 6, 3, 3).half()
    check_half(backend, x, weight, torch.randn(2, 8, 9, 9), padding=1, center=center)


@every_backend
def test_small_gradients_in_float16_keep_their_digits(backend):
    """Scaling against overflow must not push small numbers out of the range at the other end."""
    x, weight = torch.randn(2, 16, 9, 9).half(), torch.randn(8, 16, 3, 3).half()
    check_half(backend, x, weight, torch.randn(2, 8, 9, 9) * 1e-3, padding=1)


@every_backend
def test_an_infinite_gradient_spoils_only_the_pixels_that_it_reaches(backend):
    x, weight = torch.randn(2, 4, 6, 6).half(), torch.randn(4, 4, 3, 3).half()
    cotangent = torch.randn(2, 4, 6, 6)
    cotangent[0, 0, 0, 0] = torch.inf
    grad = gradients(backend, x, weight, cotangent, padding=1)[1]
    assert not grad[0, :, 0, 0].isfinite().all()
    assert grad[0, :, 2:].isfinite().all() and grad[1].isfinite().all()


@pytest.mark.parametrize('backend', ['reference', *BACKENDS])
@pytest.mark.parametrize('kernel', [1, 3])
@pytest.mark.parametrize('size', [1e19, 1e30])
def test_a_variance_beyond_float32_gives_zero(backend, kernel, size):
    """Its rstd is 1 / infinity = 0. So output and gradients are 0, not NaN."""
    x, weight = torch.randn(2, 20, 5, 6) * 5 * size, torch.randn(4, 20, kernel, kernel) * 0.1
    cotangent = torch.randn(2, 4, 6 - kernel, 7 - kernel)
    for result in gradients(backend, x, weight, cotangent):
        assert (result == 0).all()


@every_backend
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ('kernel', 'options'),
    [(1, {'stride': 2}), (2, {'stride': 4}), (3, {'stride': 2}), (3, {'dilation': 3})],
)
def test_a_nan_in_a_pixel_that_no_patch_contains_changes_nothing(backend, layout, kernel, options):
    size = 8 if 'stride' in options else 7
    x, weight = torch.randn(2, 4, size, size), torch.randn(4, 4, kernel, kernel)
    seen = torch.zeros(size, dtype=torch.bool)
    steps = {'stride': 1, 'dilation': 1} | options
    for start in range(0, size - steps['dilation'] * (kernel - 1), steps['stride']):
        seen[start : start + steps['dilation'] * (kernel - 1) + 1 : steps['dilation']] = True
    unseen = ~(seen[:, None] & seen)
    assert unseen.any()
    out = ops.nc_conv2d(x, weight, **options)
    cotangent = torch.randn(out.shape)
    expected = gradients(backend, x, weight, cotangent, **options)
    x = x.masked_fill(unseen, torch.nan).contiguous(memory_format=layout)
    for a, e in zip(gradients(backend, x, weight, cotangent, **options), expected, strict=True):
        torch.testing.assert_close(a, e)


@every_backend
@pytest.mark.parametrize('dtype', [torch.float64, torch.float16])
@pytest.mark.parametrize('center', [True, False])
@pytest.mark.parametrize('groups', [1, 2])
def test_one_channels_last_sample(backend, dtype, center, groups):
    """torch 2.11 misreads a sample whose batch stride is too small, as after a view."""
    image = torch.randn(6, 5, 4).to(dtype)
    x = image.permute(2, 0, 1).unsqueeze(0)
    assert x.stride(0) < x.numel()
    weight = torch.randn(6, 4 // groups, 3, 3).to(dtype, memory_format=torch.channels_last)
    for given in (x, x.contiguous(memory_format=torch.channels_last).clone()):
        for create_graph in (False, True):
            check_one_sample(backend, given, weight, groups, center, create_graph)


def check_one_sample(backend, x, weight, groups, center, create_graph):
    cotangent = torch.randn(1, 6, 4, 3, generator=torch.Generator().manual_seed(1)).to(x.dtype)
    results = []
    for name, dtype in (('reference', torch.float64), (backend, x.dtype)):
        leaves = [t.detach().to(dtype).requires_grad_() for t in (x, weight)]
        out = ops.nc_conv2d(*leaves, groups=groups, center=center, backend=name)
        results.append(
            torch.autograd.grad(out, leaves, cotangent.to(dtype), create_graph=create_graph)
        )
    tolerance = 1e-10 if x.dtype == torch.float64 else 1e-2
    for expected, actual in zip(*results, strict=True):
        assert (actual - expected).abs().max() <= tolerance * expected.abs().max()


def test_one_sample_exports_with_dynamic_size():
    """Nothing may depend on the strides of a sample, which are symbols then."""

    class Model(torch.nn.Module):
        def forward(self, x, weight):
            return ops.nc_conv2d(x, weight, stride=2, groups=2, backend='aten')

    weight = torch.randn(4, 2, 3, 3)
    height, width = (torch.export.Dim(name, min=8, max=64) for name in ('height', 'width'))
    sizes = {'x': {2: height, 3: width}, 'weight': None}
    with torch.no_grad():
        given = (torch.randn(1, 4, 12, 12), weight)
        exported = torch.export.export(Model(), given, dynamic_shapes=sizes).module()
    x = torch.randn(1, 4, 20, 17)
    torch.testing.assert_close(exported(x, weight), Model()(x, weight))


@every_backend
def test_one_filter_in_channels_last(backend):
    """torch 2.11 raises an error for a filter whose first stride is too small, as after a view."""
    case = Case('nc_conv1d', (6, 1), (8,), (3,), {'padding': 1})
    x, weight, bias, gain = tensors(case)
    weight = weight[0].t().contiguous().t().unsqueeze(0)
    for x_given in (x, x.movedim(1, 2).contiguous().movedim(2, 1)):
        expected = run('reference', case, (x, weight, bias, gain))
        actual = run(backend, case, (x_given, weight, bias, gain))
        for a, e in zip(actual, expected, strict=True):
            torch.testing.assert_close(a, e)


@pytest.mark.parametrize('center', [True, False])
def test_transposed_patches_of_one_value_lose_no_digits(center):
    """With one channel in a group some positions receive one value. Their rstd is 316."""
    x, weight = torch.randn(2, 4, 5, 5) + 1, torch.randn(4, 2, 3, 3)
    options = {'operator': 'nc_conv_transpose2d', 'stride': 2, 'groups': 4, 'center': center}
    cotangent = torch.randn(2, 8, 11, 11)
    truth = gradients('reference', x.double(), weight.double(), cotangent, **options)
    definition = gradients('reference', x, weight, cotangent, **options)
    actual = gradients('aten', x, weight, cotangent, **options)
    for name, t, d, a in zip(NAMES, truth, definition, actual, strict=False):
        error, yardstick = ((r - t).abs().max() for r in (a, d))
        assert error <= 3 * yardstick + 1e-6 * t.abs().max(), name


@every_backend
def test_constant_patches_without_centering_lose_no_digits(backend):
    """The gradient through their mean and rstd is the product of a huge number and exactly 0."""
    x, weight = torch.full((2, 4, 7, 7), 0.7), torch.randn(4, 4, 3, 3)
    cotangent = torch.randn(2, 4, 5, 5)
    truth = gradients('reference', x.double(), weight.double(), cotangent, center=False)
    actual = gradients(backend, x, weight, cotangent, center=False)
    for name, t, a in zip(NAMES, truth, actual, strict=False):
        assert (a - t).abs().max() <= 1e-6 * t.abs().max(), name
