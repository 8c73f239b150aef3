"""Accuracy of the Triton backend. test_triton.py runs this file; see triton_cases.py."""

import pytest
import torch
import torch.nn.functional as F

from nc_plugins import ops
from nc_plugins.ops import reference, triton_launch

from . import test_photographs as photographs
from .cases import NAMES, Case, run, tensors
from .test_accuracy import FLOOR, TOLERANCE
from .triton_cases import (  # the last two are fixtures
    BLOCKS,
    DEVICE,
    FORMATS,
    HALF,
    PLANE,
    WIDE,
    actual,
    check,
    cotangent,
    full_precision,  # noqa: F401
    round_as_a_gpu,  # noqa: F401
)


@pytest.mark.parametrize('format', FORMATS, ids=str)
@pytest.mark.parametrize('case', PLANE + BLOCKS, ids=str)
def test_equals_the_definition(case, format):
    check(case, [t.float() for t in tensors(case)], TOLERANCE[1.0], FLOOR, format)


@pytest.mark.parametrize('case', WIDE, ids=str)
@pytest.mark.parametrize('mean', TOLERANCE)
def test_float32(case, mean):
    given = [t.float() for t in tensors(case, batch=1, mean=mean)]
    check(case, given, TOLERANCE[mean], FLOOR)


@pytest.mark.parametrize('dtype', HALF)
@pytest.mark.parametrize('case', WIDE + BLOCKS[1:3], ids=str)
def test_half_precision(dtype, case):
    given = [t.to(dtype) for t in tensors(case, batch=1)]
    check(case, given, 3, torch.finfo(dtype).eps)


@pytest.mark.parametrize('dtype', HALF)
@pytest.mark.parametrize('case', WIDE[:2], ids=str)
def test_autocast(dtype, case):
    """As in test_accuracy.py: float32 parameters, activations in float32 or half precision."""
    x, weight, bias, gain = (t.float() for t in tensors(case))
    truth = run('reference', case, [t.double() for t in (x, weight, bias, gain)])
    for given in (x, x.to(dtype)):
        leaves = [t.to(DEVICE).requires_grad_() for t in (given.clone(), weight, bias, gain)]
        with torch.autocast(DEVICE, dtype):
            out = ops.nc_conv2d(*leaves[:3], gain=leaves[3], **case.options, backend='triton')
        assert out.dtype == dtype
        grads = torch.autograd.grad(out, leaves, cotangent(out.shape).to(DEVICE, dtype))
        for name, leaf, grad in zip(NAMES[1:], leaves, grads, strict=True):
            assert grad.dtype == leaf.dtype, name
        for name, t, a in zip(NAMES, truth, (out, *grads), strict=True):
            assert (a.cpu() - t).abs().max() <= 8 * torch.finfo(dtype).eps * t.abs().max(), name


@pytest.mark.parametrize('kernel', [1, 3])
def test_512_channels_are_as_accurate_as_a_plain_convolution(kernel):
    case = Case('nc_conv2d', (512, 8), (4, 4), (kernel, kernel), {'padding': kernel // 2})
    for mean in (0.0, 100.0):
        given = [t.float() for t in tensors(case, batch=1, mean=mean)]
        truth = run('reference', case, [t.double() for t in given])[0]
        result = actual(case, given)[0]
        error = (result - truth).abs().max() / truth.abs().max()
        x, weight = given[0] - mean, given[1]  # for the error of torch's convolution without NC
        plain = F.conv2d(x.double(), weight.double(), padding=kernel // 2)
        x = x.to(DEVICE, memory_format=torch.channels_last)
        library = F.conv2d(x, weight.to(DEVICE), padding=kernel // 2).cpu()
        assert error <= 2 * (library - plain).abs().max() / plain.abs().max()


@pytest.mark.parametrize('kernel', [1, 3])
@pytest.mark.parametrize('bright', [1000.0, 30.0])
@pytest.mark.parametrize('dtype', [torch.float32, *HALF])
def test_bright_channels_do_not_affect_the_accuracy_of_others(kernel, bright, dtype):
    """The mean of a block of channels is far from the mean of the pixel in a 1x1 convolution."""
    case = Case('nc_conv2d', (96, 8), (3, 4), (kernel, kernel), {})
    given = tensors(case, batch=1)
    given[0][:, :32] += bright
    check(case, [t.to(dtype) for t in given], 3, max(FLOOR, torch.finfo(dtype).eps))


@pytest.mark.parametrize('kernel', [1, 3])
@pytest.mark.parametrize(
    ('dtype', 'bright'),
    [(torch.float32, 1000.0), (torch.bfloat16, 250.0), (torch.float16, 250.0)],
)
def test_a_dark_region_beside_a_bright_one(kernel, dtype, bright):
    torch.manual_seed(0)
    x = torch.randn(1, 16, 12, 24)
    x[..., 12:] += bright
    x, weight = x.to(dtype), torch.randn(8, 16, kernel, kernel).to(dtype)
    truth = reference.nc_conv2d(x.double(), weight.double())
    definition = reference.nc_conv2d(x, weight)
    result = ops.nc_conv2d(x.to(DEVICE), weight.to(DEVICE), backend='triton').cpu()
    for half in (slice(0, 10), slice(12, 22)):
        scale = truth[..., half].abs().max()
        error, yardstick = ((r - truth)[..., half].abs().max() for r in (result, definition))
        assert error <= 3 * yardstick + max(FLOOR, torch.finfo(dtype).eps) * scale


@pytest.mark.parametrize('kernel', [1, 3])
def test_statistics_are_float32_and_accurate_at_a_large_mean(kernel):
    torch.manual_seed(0)
    weight = torch.randn(4, 16, kernel, kernel)
    for mean, allowed, dtype in ((1000, 1e-4, None), (200, 0.02, torch.bfloat16)):
        x = torch.randn(2, 16, 8, 8) + mean
        truth = reference.nc_conv2d(x.double(), weight.double())
        with torch.autocast(DEVICE, dtype, enabled=dtype is not None):
            out = ops.nc_conv2d(x.to(DEVICE), weight.to(DEVICE), backend='triton').cpu()
        assert (out - truth).abs().max() < allowed * truth.abs().max()


@pytest.mark.parametrize('case', [PLANE[0], PLANE[1], PLANE[4]], ids=str)
def test_constant_patches_give_the_bias(case):
    given = [torch.full_like(t, 0.7) if i == 0 else t for i, t in enumerate(tensors(case))]
    expected = run('reference', case, given)
    results = actual(case, [t.float() for t in given])
    for name, a, e in zip(NAMES, results, expected, strict=True):
        assert (a - e).abs().max() < 316 * 1e-6 * e.abs().max().clamp(min=1), name


@pytest.mark.parametrize('switches', [(True, False), (False, True), (False, False)])
def test_without_center_or_scale(switches):
    center, scale = switches
    given = [t.float() for t in tensors(PLANE[0])]
    expected = run('reference', PLANE[0], given, center=center, scale=scale)
    results = actual(PLANE[0], given, center=center, scale=scale)
    for a, e in zip(results, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    'case', [PLANE[5], Case('nc_conv2d', (4, 34), (9, 8), (3, 3), {})], ids=str
)
def test_programs_that_loop_over_tiles(case, monkeypatch):
    """Each program loops over several tiles, and the last program has fewer."""
    monkeypatch.setattr(triton_launch, '_SPLITS', 3)
    given = [t.float() for t in tensors(case, batch=3)]
    for format in FORMATS:
        check(case, given, TOLERANCE[1.0], FLOOR, format)


@pytest.mark.parametrize('kernel', [1, 3])
def test_thirty_steps_give_the_same_losses(kernel):
    """In float32, to a relative 1e-4. The final parameters are equal to the same tolerance."""
    case = Case('nc_conv2d', (4, 2), (4, 4), (kernel, kernel), {'padding': kernel // 2})

    def train(chosen, device, dtype):
        x, *start = (t.to(device, dtype) for t in tensors(case))
        parameters = [t.clone().requires_grad_() for t in start]
        target = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(3))
        target = target.to(device, dtype)
        optimizer = torch.optim.SGD(parameters, lr=0.05)
        losses = []
        for _ in range(30):
            optimizer.zero_grad()
            weight, bias, gain = parameters
            out = ops.nc_conv2d(x, weight, bias, gain=gain, **case.options, backend=chosen)
            loss = (out - target).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        assert losses[-1] < 0.7 * losses[0]
        return [t.detach().cpu().double() for t in (torch.stack(losses), *parameters)]

    expected = train('reference', 'cpu', torch.float64)
    for a, e in zip(train('triton', DEVICE, torch.float32), expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('layer', photographs.LAYERS)
def test_error_on_photographs_is_at_most_twice_that_of_the_definition(layer):
    """As test_photographs.py, on smaller crops: bfloat16 autocast, with flat sky and water."""
    shape, options = photographs.LAYERS[layer]
    generator = torch.Generator().manual_seed(0)
    x = photographs.photographs(24)
    weight = torch.randn(shape, generator=generator) * 0.1
    gain, bias = (torch.randn(shape[0], generator=generator) for _ in range(2))
    exact = [t.double() for t in (x, weight, bias, gain)]
    truth = reference.nc_conv2d(*exact[:3], gain=exact[3], **options)
    results = {}
    for name, device in (('reference', 'cpu'), ('triton', DEVICE)):
        given = [t.to(device) for t in (x, weight, bias, gain)]
        with torch.autocast(device, torch.bfloat16):
            out = ops.nc_conv2d(*given[:3], gain=given[3], **options, backend=name)
        results[name] = (out.bfloat16().cpu().double() - truth).abs()
    for measure in (torch.max, lambda error: error.square().mean().sqrt()):
        assert measure(results['triton']) <= 2 * measure(results['reference'])
