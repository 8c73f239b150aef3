"""Float32 and the half precisions against float64, with the im2col definition as the yardstick.

One tolerance table for every backend. The error of a result is its largest deviation from float64;
it may be ``factor`` times that of the definition in the same dtype, plus ``floor`` of the result's
scale (its largest entry). Every size stays where mean and std are of order one to a hundred.
"""

import pytest
import torch
import torch.nn.functional as F

from nc_plugins import ops
from nc_plugins.ops import reference

from .cases import BACKENDS, NAMES, Case, run, served, tensors

WIDE = [
    Case('nc_conv2d', (64, 32), (14, 14), (1, 1), {}),
    Case('nc_conv2d', (32, 32), (16, 16), (3, 3), {'padding': 1}),
    Case('nc_conv2d', (3, 32), (32, 32), (7, 7), {'stride': 2, 'padding': 3}),
    Case('nc_conv2d', (32, 32), (16, 16), (3, 3), {'padding': 2, 'dilation': 2, 'groups': 4}),
    Case('nc_conv2d', (16, 16), (12, 12), (5, 5), {'padding': 2, 'groups': 16}),
    Case('nc_conv_transpose2d', (16, 16), (9, 9), (4, 4), {'stride': 2, 'padding': 1}),
]
# mean/std of the input -> factor over the definition's own error, in float32
TOLERANCE = {0.0: 3, 1.0: 3, 3.0: 3, 100.0: 50}
FLOOR = 1e-6


@served(WIDE)
@pytest.mark.parametrize('mean', TOLERANCE)
def test_float32(backend, case, mean):
    for seed in range(3):
        given = tensors(case, mean=mean, seed=seed)
        single = [t.float() for t in given]
        truth = run('reference', case, given)
        definition = run('reference', case, single)
        actual = run(backend, case, single)
        for name, t, d, a in zip(NAMES, truth, definition, actual, strict=True):
            error, yardstick = ((r - t).abs().max() for r in (a, d))
            assert error <= TOLERANCE[mean] * yardstick + FLOOR * t.abs().max(), name


@pytest.mark.parametrize('backend', BACKENDS)
def test_float32_at_five_hundred_channels_is_as_good_as_the_plain_convolution(backend):
    """A sum of 4608 products: what is lost, the convolution library loses without NC too."""
    case = Case('nc_conv2d', (512, 64), (7, 7), (3, 3), {'padding': 1})
    x, weight, bias, gain = tensors(case, mean=0.0)
    plain = F.conv2d(x, weight, padding=1)
    error = (F.conv2d(x.float(), weight.float(), padding=1) - plain).abs().max()
    allowed = 2 * error / plain.abs().max()
    for mean in (0.0, 3.0, 100.0):
        given = ((x + mean).float().double(), weight, bias, gain)  # a float32 number
        truth = run('reference', case, given)[0]
        actual = run(backend, case, [t.float() for t in given])[0]
        assert (actual - truth).abs().max() / truth.abs().max() <= allowed


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@served(WIDE)
def test_half_precision(backend, dtype, case):
    given = [t.to(dtype) for t in tensors(case, mean=1.0)]
    truth = run('reference', case, [t.double() for t in given])
    definition = run('reference', case, given)
    actual = run(backend, case, given)
    resolution = torch.finfo(dtype).eps
    for name, t, d, a in zip(NAMES, truth, definition, actual, strict=True):
        assert a.dtype == dtype
        error, yardstick = ((r - t).abs().max() for r in (a, d))
        assert error <= 3 * yardstick + resolution * t.abs().max(), name


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@served([WIDE[0], WIDE[1], WIDE[5]])
def test_autocast(backend, dtype, case):
    """Parameters in float32, activations in either; dtype out as a convolution's there."""
    x, weight, bias, gain = (t.float() for t in tensors(case))
    truth = run('reference', case, [t.double() for t in (x, weight, bias, gain)])
    for given in (x, x.to(dtype)):
        leaves = [t.clone().requires_grad_() for t in (given, weight, bias, gain)]
        with torch.autocast('cpu', dtype):
            operator = getattr(ops, case.operator)
            out = operator(*leaves[:3], gain=leaves[3], **case.options, backend=backend)
        assert out.dtype == dtype
        cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
        grads = torch.autograd.grad(out, leaves, cotangent.to(dtype))
        for name, leaf, grad in zip(NAMES[1:], leaves, grads, strict=True):
            assert grad.dtype == leaf.dtype, name
        for name, t, a in zip(NAMES, truth, (out, *grads), strict=True):
            assert (a - t).abs().max() <= 8 * torch.finfo(dtype).eps * t.abs().max(), name


@pytest.mark.parametrize('backend', BACKENDS)
def test_statistics_under_autocast_are_those_of_float32(backend):
    """At mean/std = 200 a bfloat16 input would keep nothing of the deviation from the mean."""
    torch.manual_seed(0)
    x, weight = torch.randn(2, 16, 8, 8) + 200, torch.randn(16, 16, 3, 3)
    truth = reference.nc_conv2d(x.double(), weight.double())
    with torch.autocast('cpu', torch.bfloat16):
        out = ops.nc_conv2d(x, weight, backend=backend)
    assert (out - truth).abs().max() < 0.02 * truth.abs().max()


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize(
    ('dtype', 'bright', 'factor'),
    [(torch.float32, 1000.0, 3), (torch.bfloat16, 250.0, 3), (torch.float16, 250.0, 3)],
)
def test_a_dark_region_beside_a_bright_one(backend, dtype, bright, factor):
    """What one half of an image looks like must not cost the other half its digits."""
    torch.manual_seed(0)
    x = torch.randn(1, 16, 12, 24)
    x[..., 12:] += bright
    x, weight = x.to(dtype), torch.randn(16, 16, 3, 3).to(dtype)
    truth = reference.nc_conv2d(x.double(), weight.double())
    definition = reference.nc_conv2d(x, weight)
    actual = ops.nc_conv2d(x, weight, backend=backend)
    for half in (slice(0, 10), slice(12, 22)):
        scale = truth[..., half].abs().max()
        error, yardstick = ((r - truth)[..., half].abs().max() for r in (actual, definition))
        assert error <= factor * yardstick + max(FLOOR, torch.finfo(dtype).eps) * scale


@pytest.mark.parametrize('backend', BACKENDS)
def test_float64_stays_float64_under_autocast(backend):
    x, weight, *_ = tensors(WIDE[1])
    with torch.autocast('cpu', torch.bfloat16):
        out = ops.nc_conv2d(x, weight, padding=1, backend=backend)
    assert out.dtype == torch.float64
    torch.testing.assert_close(out, reference.nc_conv2d(x, weight, padding=1))


@pytest.mark.parametrize('backend', BACKENDS)
def test_variance_far_from_the_origin(backend):
    """mean/std = 1000: E[x^2] - E[x]^2 is 36 % wrong there in float32."""
    torch.manual_seed(0)
    x, weight = torch.randn(2, 16, 8, 8) + 1000, torch.randn(16, 16, 3, 3)
    truth = reference.nc_conv2d(x.double(), weight.double())
    out = ops.nc_conv2d(x, weight, backend=backend)
    assert (out - truth).abs().max() < 1e-4 * truth.abs().max()
