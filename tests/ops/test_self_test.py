"""``backend='auto'`` tests the kernels that are compiled at run time, and falls back to aten."""

import warnings
from types import SimpleNamespace

import pytest
import torch

from nc_plugins import ops
from nc_plugins.ops import aten, autograd, dispatch, self_test


def raises(*args, **options):
    raise RuntimeError('Failed to find C compiler')


def wrong_output(*args, **options):
    out, *saved = aten.forward(*args, **options)
    return out + 1, *saved


def wrong_gradients(*args, **options):
    return tuple(2 * grad for grad in aten.backward(*args, **options))


@pytest.fixture
def fastest(monkeypatch):
    """Put a backend before all others, under the name of the one that compiles at run time."""
    self_test._failure.cache_clear()

    def put(forward=aten.forward, backward=aten.backward):
        backend = SimpleNamespace(
            missing=aten.missing, refuses=aten.refuses, forward=forward, backward=backward
        )
        monkeypatch.setattr(dispatch, 'BACKENDS', {'triton': backend, 'aten': aten})
        monkeypatch.setitem(autograd.BACKENDS, 'triton', backend)

    yield put
    self_test._failure.cache_clear()


def layer(dtype=torch.float32):
    return torch.randn(2, 4, 5, 5, dtype=dtype), torch.randn(6, 4, 3, 3, dtype=dtype)


@pytest.mark.parametrize(
    ('functions', 'reason'),
    [
        ({'forward': raises}, 'RuntimeError: Failed to find C compiler'),
        ({'forward': wrong_output}, 'wrong values for a 1x1 kernel'),
        ({'backward': wrong_gradients}, 'wrong values for a 1x1 kernel'),
    ],
)
def test_a_broken_backend_is_replaced_with_one_warning(fastest, functions, reason):
    fastest(**functions)
    x, weight = layer()
    with pytest.warns(UserWarning, match=f'on cpu in torch.float32.*{reason}'):
        out = ops.nc_conv2d(x, weight)
    torch.testing.assert_close(out, ops.nc_conv2d(x, weight, backend='aten'))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        ops.nc_conv2d(x, weight)
    with pytest.warns(UserWarning, match='on cpu in torch.bfloat16'):
        ops.nc_conv2d(*layer(torch.bfloat16))


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
def test_a_right_backend_is_used(fastest, dtype):
    calls = []

    def counting(*args, **options):
        calls.append(args)
        return aten.forward(*args, **options)

    fastest(forward=counting)
    x, weight = layer(dtype)
    for seen in (3, 4):  # the test runs a 1x1 and a 3x3 layer once
        ops.nc_conv2d(x, weight)
        assert len(calls) == seen


def test_a_named_backend_raises_its_own_error(fastest):
    fastest(forward=raises)
    with pytest.raises(RuntimeError, match='Failed to find C compiler'):
        ops.nc_conv2d(*layer(), backend='triton')


def test_the_test_is_free_of_the_modes_of_the_caller(fastest):
    fastest()
    x, weight = layer()
    per_sample = torch.func.vmap(lambda x: ops.nc_conv2d(x[None], weight)[0])
    with torch.autocast('cpu', torch.bfloat16), warnings.catch_warnings():
        warnings.simplefilter('error')
        per_sample(x)
        before = torch.get_rng_state()
        torch.compile(ops.nc_conv2d, backend='eager', fullgraph=True)(x, weight)
        assert torch.equal(before, torch.get_rng_state())
