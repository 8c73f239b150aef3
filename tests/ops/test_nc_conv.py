"""Every backend against the definition in float64, in all the shapes that a convolution takes."""

import pytest
import torch
import torch.nn.functional as F

from nc_plugins import ops

from .cases import BACKENDS, CASES, NAMES, run, served, tensors

SWITCHES = [(True, True), (True, False), (False, True), (False, False)]


@served(CASES)
@pytest.mark.parametrize(('center', 'scale'), SWITCHES)
def test_equals_the_definition(backend, case, center, scale):
    given = tensors(case)
    expected = run('reference', case, given, center=center, scale=scale)
    actual = run(backend, case, given, center=center, scale=scale)
    for name, a, e in zip(NAMES, actual, expected, strict=True):
        error = (a - e).abs().max() / e.abs().max().clamp(min=1)
        assert error < 1e-10, f'{name}: {error:.1e}'


@pytest.mark.parametrize('case', CASES, ids=str)
def test_without_center_and_scale_it_is_the_plain_convolution(case):
    given = tensors(case)
    x, weight, bias, _ = given
    ones = torch.ones_like(bias)
    actual = run('aten', case, (x, weight, bias, ones), center=False, scale=False)[0]
    plain = getattr(F, case.operator.removeprefix('nc_'))
    torch.testing.assert_close(actual, plain(x, weight, bias, **case.options))


@served([CASES[0], CASES[4], CASES[16]])
def test_constant_patches_give_the_bias(backend, case):
    """Flat sky: (p - mean) is rounding noise, and eps keeps it from being blown up."""
    given = [torch.full_like(t, 0.7) if i == 0 else t for i, t in enumerate(tensors(case))]
    expected = run('reference', case, given)
    actual = run(backend, case, [t.float() for t in given])
    for name, a, e in zip(NAMES, actual, expected, strict=True):
        # rstd is 316 on a constant patch, so a float32 rounding of 0.7 may show that much larger
        assert (a - e).abs().max() < 316 * 1e-6 * e.abs().max().clamp(min=1), name
    flat = {'nc_conv2d': (slice(2, 3), slice(2, 3)), 'nc_conv_transpose2d': (slice(None),) * 2}
    inner = actual[0][(..., *flat[case.operator])] - given[2].float().reshape(1, -1, 1, 1)
    assert inner.abs().max() < 1e-3


@served([CASES[0], CASES[1], CASES[13], CASES[16]])
def test_empty_batch(backend, case):
    out, *grads = run(backend, case, tensors(case, batch=0))
    assert out.shape[0] == 0 and out.shape[1] == case.channels[1]
    assert grads[0].shape[0] == 0
    assert all((grad == 0).all() for grad in grads[1:])


@served([CASES[0], CASES[1], CASES[4], CASES[16]])
def test_memory_format_is_kept(backend, case):
    x, weight, *_ = tensors(case)
    operator = getattr(ops, case.operator)
    for layout in (torch.contiguous_format, torch.channels_last):
        arranged = x.to(memory_format=layout).requires_grad_()
        out = operator(arranged, weight.to(memory_format=layout), **case.options, backend=backend)
        assert out.is_contiguous(memory_format=layout)
        (grad,) = torch.autograd.grad(out, arranged, torch.randn_like(out))
        assert grad.is_contiguous(memory_format=layout)


@pytest.mark.parametrize('backend', BACKENDS)
def test_strided_input(backend):
    case = CASES[0]
    x, *rest = tensors(case)
    wide = torch.zeros(*x.shape[:3], x.shape[3] * 2, dtype=x.dtype)
    wide[..., ::2] = x
    expected = run(backend, case, (x, *rest))[0]
    actual = ops.nc_conv2d(
        wide[..., ::2], rest[0], rest[1], gain=rest[2], **case.options, backend=backend
    )
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize('backend', BACKENDS)
def test_only_the_gradients_asked_for(backend):
    """A frozen weight or an image that needs no gradient, with a gain of zero on top."""
    case = CASES[0]
    x, weight, bias, gain = tensors(case)
    gain[0] = 0
    expected = run('reference', case, (x, weight, bias, gain))[1:]
    cotangent = torch.randn(2, 8, 9, 8, generator=torch.Generator().manual_seed(1)).double()
    for wanted in range(4):
        given = [
            t.clone().requires_grad_(i == wanted) for i, t in enumerate((x, weight, bias, gain))
        ]
        out = ops.nc_conv2d(*given[:3], gain=given[3], **case.options, backend=backend)
        (grad,) = torch.autograd.grad(out, given[wanted], cotangent)
        torch.testing.assert_close(grad, expected[wanted])


@pytest.mark.parametrize('backend', BACKENDS)
def test_keeps_for_backward_what_convolution_and_group_norm_keep(backend):
    """Distinct storages in bytes, beyond two single-channel maps and a handful of scalars."""

    def kept(function, *inputs):
        storages = {}

        def pack(tensor):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = function(*inputs)
        assert out.requires_grad
        return sum(storages.values())

    x = torch.randn(2, 16, 12, 12, requires_grad=True)
    weight = torch.randn(16, 16, 3, 3, requires_grad=True)
    gain, bias = (torch.randn(16, requires_grad=True) for _ in range(2))
    usual = kept(lambda: F.group_norm(F.conv2d(x, weight, padding=1), 4, gain, bias))
    ours = kept(lambda: ops.nc_conv2d(x, weight, bias, padding=1, gain=gain, backend=backend))
    maps = 2 * 2 * 12 * 12 * 4
    assert ours <= usual + maps


def test_in_place_change_of_a_kept_output_is_reported():
    x, weight, *_ = (t.requires_grad_() for t in tensors(CASES[0]))
    out = ops.nc_conv2d(x, weight, padding=1, backend='aten')
    cotangent = torch.randn_like(out)
    out.relu_()
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        out.backward(cotangent)


@pytest.mark.parametrize('backend', BACKENDS)
def test_in_place_change_of_an_output_that_is_not_kept(backend):
    """A bias makes 'aten' return another tensor than it keeps; 'cpu' keeps no output at all."""
    x, weight, bias, _ = tensors(CASES[0])
    biases = (bias, None) if backend == 'cpu' else (bias,)
    for bias in biases:
        results = []
        for chosen in (backend, 'reference'):
            leaf = x.clone().requires_grad_()
            out = ops.nc_conv2d(leaf, weight, bias, padding=1, backend=chosen).relu_()
            results.append(torch.autograd.grad(out, leaf, torch.cos(out.detach()))[0])
        torch.testing.assert_close(*results)


@pytest.mark.parametrize('backend', BACKENDS)
def test_compiles_whole_and_exports(backend):
    x, weight, bias, gain = tensors(CASES[0])

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(weight)

        def forward(self, x):
            return ops.nc_conv2d(x, self.weight, bias, gain=gain, padding=1, backend=backend)

    model = Model()
    expected = model(x)
    compiled = torch.compile(model, backend='aot_eager', fullgraph=True)
    actual = compiled(x)
    torch.testing.assert_close(actual, expected)
    cotangent = torch.randn_like(expected)
    grads = [torch.autograd.grad(out, model.weight, cotangent)[0] for out in (expected, actual)]
    torch.testing.assert_close(grads[1], grads[0])
    with torch.no_grad():
        exported = torch.export.export(model, (x,))
    torch.testing.assert_close(exported.module()(x), expected)


def test_meta_tensors_have_shapes():
    x, weight, *_ = (t.to('meta') for t in tensors(CASES[0]))
    assert ops.nc_conv2d(x, weight, padding=1).shape == (2, 8, 9, 8)


def test_traces():
    """What FLOP counters do, with gradients on."""
    x, weight, *_ = tensors(CASES[0])

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(weight)

        def forward(self, x):
            return ops.nc_conv2d(x, self.weight, padding=1)

    model = Model()
    traced = torch.jit.trace(model, x)
    torch.testing.assert_close(traced(x + 1), model(x + 1))


def test_auto_says_once_which_backend_it_runs(caplog, monkeypatch):
    from nc_plugins.ops import cpu, dispatch

    monkeypatch.setattr(dispatch, '_announced', set())
    x, weight, *_ = tensors(CASES[0])
    with caplog.at_level('INFO', logger='nc_plugins'):
        for _ in range(2):
            ops.nc_conv2d(x, weight)
        monkeypatch.setattr(cpu, '_reason', 'it was not built')
        for _ in range(2):
            ops.nc_conv2d(x, weight)
    said = [record.getMessage() for record in caplog.records]
    assert [record.levelname for record in caplog.records] == ['INFO', 'WARNING']
    assert len(said) == 2 and said[0].startswith("backend 'auto' runs 'cpu'")
    assert said[1].startswith("backend 'auto' runs 'aten'") and "'cpu': it was not built" in said[1]
