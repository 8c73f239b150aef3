"""Programs that work on nn.Conv2d work on NC layers, joined or not, with every CPU backend."""

import copy
import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, stack_module_state, vmap

from nc_plugins import ops
from nc_plugins.layers import (
    NCAffine,
    NCConv1d,
    NCConv2d,
    NCConvTranspose2d,
    PositionalNorm,
    join_affines,
)

from .models import X, randomize

BACKENDS = [name for name in ops.available_backends() if name != 'triton']


def network(backend='auto', joined=True):
    model = nn.Sequential(
        NCConv2d(4, 6, 3, padding=1, bias=False, backend=backend), NCAffine(6), nn.Tanh(),
        NCConv2d(6, 4, 1, backend=backend), PositionalNorm(4), nn.Tanh(),
        NCConv2d(4, 2, 3, padding=1, affine=True, groups=2, backend=backend),
    )  # fmt: skip
    randomize(model.double())
    if joined:
        assert join_affines(model) == 1
    return model


networks = pytest.mark.parametrize(
    ('backend', 'joined'), [(name, joined) for name in BACKENDS for joined in (True, False)]
)


def loss(model, parameters, x):
    return functional_call(model, parameters, (x,)).square().mean()


@networks
def test_func_grad(backend, joined):
    model = network(backend, joined)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    ours = grad(lambda p: loss(model, p, X))(parameters)
    model(X).square().mean().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad)


@networks
def test_per_sample_gradients(backend, joined):
    model = network(backend, joined)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    ours = vmap(grad(lambda p, x: loss(model, p, x[None])), in_dims=(None, 0))(parameters, X)
    for i in range(len(X)):
        model.zero_grad()
        model(X[i : i + 1]).square().mean().backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(ours[name][i], parameter.grad)


@networks
def test_vmap_over_images_and_over_weights(backend, joined):
    model = network(backend, joined)
    torch.testing.assert_close(vmap(lambda x: model(x[None])[0])(X), model(X))
    others = [network(backend, joined) for _ in range(3)]
    parameters, buffers = stack_module_state(others)
    outs = vmap(lambda p, b: functional_call(model, (p, b), (X,)))(parameters, buffers)
    for out, other in zip(outs, others, strict=True):
        torch.testing.assert_close(out, other(X))


@networks
def test_jacobians(backend, joined):
    model = network(backend, joined)
    x = X[:1, :, :4, :3]
    expected = torch.autograd.functional.jacobian(model, x)
    torch.testing.assert_close(jacrev(model)(x), expected)
    torch.testing.assert_close(jacfwd(model)(x), expected)


@networks
def test_forward_mode(backend, joined):
    model = network(backend, joined)
    tangent = torch.randn_like(X)
    out, ours = jvp(model, (X,), (tangent,))
    step = 1e-6
    expected = (model(X + step * tangent) - model(X - step * tangent)) / (2 * step)
    torch.testing.assert_close(out, model(X))
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(X, tangent)
        ours = torch.autograd.forward_ad.unpack_dual(model(dual)).tangent
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)


def test_hessian():
    model, x = network(), X[:1, :, :3, :3]
    expected = torch.autograd.functional.hessian(lambda x: model(x).square().sum(), x)
    torch.testing.assert_close(hessian(lambda x: model(x).square().sum())(x), expected)


@networks
def test_fx_records_one_call_per_operator(backend, joined):
    model = network(backend, joined)
    traced = torch.fx.symbolic_trace(model)
    functions = [n.target.__name__ for n in traced.graph.nodes if n.op == 'call_function']
    assert functions.count('normalized_convolution') == 3
    assert functions.count('channel_affine') == (not joined)
    torch.testing.assert_close(traced(X), model(X))
    for parameter in model.parameters():
        parameter.data.mul_(2)
    torch.testing.assert_close(traced(X), model(X))
    traced(X).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_feature_extractor_of_torchvision():
    extraction = pytest.importorskip('torchvision.models.feature_extraction')
    model = network().eval()
    extractor = extraction.create_feature_extractor(model, {'2': 'first', '5': 'second'})
    features = extractor(X)
    torch.testing.assert_close(features['first'], model[:3](X))
    torch.testing.assert_close(features['second'], model[:6](X))


@networks
@pytest.mark.parametrize('with_grad', [True, False])
def test_jit_trace_with_its_check(backend, joined, with_grad, recwarn):
    model = network(backend, joined)
    with torch.set_grad_enabled(with_grad):
        traced = torch.jit.trace(model, X)
    if backend != 'reference':  # the definition is a backend for readers
        assert not [w for w in recwarn if issubclass(w.category, torch.jit.TracerWarning)]
    torch.testing.assert_close(traced(X + 1), model(X + 1))


@networks
def test_export_with_dynamic_sizes(backend, joined):
    model = network(backend, joined).eval()
    sizes = {axis: torch.export.Dim(name) for axis, name in ((0, 'n'), (2, 'h'), (3, 'w'))}
    exported = torch.export.export(model, (X,), dynamic_shapes=(sizes,)).module()
    for shape in (X.shape, (3, 4, 9, 8), (1, 4, 5, 12)):
        x = torch.randn(shape, dtype=torch.float64)
        torch.testing.assert_close(exported(x), model(x))


@pytest.mark.parametrize(
    ('backend', 'joined'),
    [
        pytest.param(name, joined, marks=() if joined and name == 'cpu' else pytest.mark.slow)
        for name in BACKENDS
        for joined in (True, False)
    ],
)
def test_compiles_as_one_graph_with_dynamic_sizes(backend, joined):
    torch._dynamo.reset()
    model = network(backend, joined)
    compiled = torch.compile(model, backend='aot_eager', fullgraph=True, dynamic=True)
    for shape in (X.shape, (3, 4, 9, 8), (5, 4, 5, 12)):
        x = torch.randn(shape, dtype=torch.float64)
        torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.parametrize('training', [True, False])
@networks
def test_every_kind_of_write_to_the_weight_counts(backend, joined, training):
    model = network(backend, joined).train(training)

    def check():
        with torch.no_grad():
            torch.testing.assert_close(model(X), copy.deepcopy(model)(X), rtol=0, atol=0)
            return model(X)

    outs = [check()]
    model[0].weight.data.mul_(torch.rand(4, 1, 1))
    outs.append(check())
    model[3].weight.detach().numpy()[...] += np.arange(24).reshape(4, 6, 1, 1) % 5
    outs.append(check())
    model[0].weight.data = torch.randn_like(model[0].weight)
    outs.append(check())
    model[1].weight.data.neg_()
    outs.append(check())
    torch.utils.swap_tensors(model[0].weight, nn.Parameter(torch.randn_like(model[0].weight)))
    outs.append(check())
    for before, after in itertools.pairwise(outs):
        assert not torch.allclose(before, after)


def test_ema_that_exchanges_weights_through_data():
    """As mmengine's EMAHook does before an evaluation, without train() or eval() around it."""
    model = network('aten').eval()
    averaged = network('aten').eval()
    with torch.no_grad():
        before, expected = model(X), averaged(X)
        for _ in range(2):
            for p, q in zip(model.parameters(), averaged.parameters(), strict=True):
                kept = p.data.clone()
                p.data.copy_(q.data)
                q.data.copy_(kept)
            before, expected = expected, before
            torch.testing.assert_close(model(X), before)


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies(copied):
    model = network()
    torch.testing.assert_close(copied(model)(X), model(X))
    model(X).sum().backward()
    torch.testing.assert_close(copied(model)(X), model(X))
    out = model(X)
    torch.testing.assert_close(pickle.loads(pickle.dumps(out.detach())), out.detach())


@networks
def test_concurrent_calls(backend, joined):
    """As nn.DataParallel calls its replicas, forward and backward."""
    model = network(backend, joined)
    images = [torch.randn(1, 4, 7, 6, dtype=torch.float64) for _ in range(32)]

    def run(x):
        x = x.clone().requires_grad_()
        (found,) = torch.autograd.grad(model(x).square().sum(), x)
        return found

    expected = [run(x) for x in images]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(run, images))
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize('integer', [np.int64, np.int32, np.uint8])
def test_integers_of_other_libraries(integer):
    model = NCConv2d(
        4, 6, integer(3), stride=integer(2), padding=integer(1), dilation=integer(1), groups=2
    )
    plain = nn.Conv2d(4, 6, 3, 2, 1, groups=2)
    assert model(X.float()).shape == plain(X.float()).shape
    weight = torch.randn(6, 2, 3, 3)
    out = ops.nc_conv2d(X.float(), weight, stride=integer(2), padding=integer(1), groups=integer(2))
    assert out.shape == plain(X.float()).shape


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('given', [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_dtype_under_autocast_is_that_of_conv2d(backend, dtype, given):
    ours = NCConv2d(4, 6, 3, backend=backend, dtype=given)
    plain = nn.Conv2d(4, 6, 3, dtype=given)
    x = X.to(given)
    with torch.autocast('cpu', dtype):
        assert ours(x).dtype == plain(x).dtype
    out = ours(x)
    assert out.dtype == given


@pytest.mark.parametrize('layer', [NCConv1d, NCConv2d, NCConvTranspose2d])
def test_weight_decay_of_norms_covers_the_gain(layer):
    pytest.importorskip('mmengine')
    from mmengine.optim import build_optim_wrapper

    model = nn.Sequential(layer(4, 6, 3, affine=True), nn.Conv2d(6, 4, 1))
    wrapper = build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='SGD', lr=0.1, weight_decay=0.01),
            paramwise_cfg=dict(norm_decay_mult=0.0),
        ),
    )
    decay = {id(g['params'][0]): g['weight_decay'] for g in wrapper.optimizer.param_groups}
    assert decay[id(model[0].gain)] == 0
    assert decay[id(model[0].weight)] == decay[id(model[1].weight)] == 0.01
    assert len(decay) == len(list(model.parameters()))
