"""In evaluation the folded weight is made once, and again as soon as it would be another one."""

import copy
import pickle

import pytest
import torch
from torch import nn

from nc_plugins.layers import NCAffine, NCConv1d, NCConv2d, NCConv3d, NCConvTranspose2d
from nc_plugins.ops import aten

X = torch.randn(2, 4, 7, 6)
LAYERS = {
    'plain': (NCConv2d, {}, X),
    'groups, gain': (NCConv2d, {'groups': 2, 'affine': True}, X),
    'weight standardised': (NCConv2d, {'weight_standardize': True}, X),
    'not centred': (NCConv2d, {'center': False}, X),
    'pointwise': (NCConv2d, {'kernel_size': 1}, X),
    '1d': (NCConv1d, {}, X[..., 0]),
    '3d': (NCConv3d, {}, X[..., None].repeat(1, 1, 1, 1, 4).cumsum(4)),
    'transposed': (NCConvTranspose2d, {'stride': 2}, X),
}


def layer_of(kind='plain'):
    layer, options, x = LAYERS[kind]
    module = layer(4, 6, **{'kernel_size': 3, 'backend': 'aten', **options}).eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module, x


@pytest.fixture
def folds(monkeypatch):
    """(weight, gain) of every fold."""
    made, fold = [], aten.fold

    def record(weight, gain, *options):
        made.append((weight, gain))
        return fold(weight, gain, *options)

    monkeypatch.setattr(aten, 'fold', record)
    return made


@pytest.mark.parametrize('kind', LAYERS)
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16])
def test_made_once_and_the_same_to_the_bit(kind, dtype, folds):
    layer, x = layer_of(kind)
    layer, x = layer.to(dtype), x.to(dtype)
    expected = layer(x).detach()  # records gradients: keeps nothing
    assert not folds
    with torch.no_grad():
        for scale in (1, 2, 1):
            out = layer(x * scale)
    assert len(folds) == 1
    torch.testing.assert_close(out, expected, rtol=0, atol=0)


CHANGES = {
    'in place': lambda conv, norm: conv.weight.mul_(2),
    'the norm in place': lambda conv, norm: norm.weight.mul_(2),
    'another norm weight': lambda conv, norm: setattr(norm, 'weight', nn.Parameter(norm.bias + 3)),
    'an optimiser': lambda conv, norm: step(conv.weight),
    'state dict': lambda conv, norm: conv.load_state_dict({'weight': conv.weight * 2}),
    'state dict assigned': lambda conv, norm: conv.load_state_dict(
        {'weight': conv.weight * 2}, assign=True
    ),
    'another parameter': lambda conv, norm: setattr(conv, 'weight', nn.Parameter(conv.weight * 2)),
    'other memory': lambda conv, norm: setattr(conv.weight, 'data', conv.weight * 2),
    'rounded': lambda conv, norm: (conv.bfloat16(), conv.float()),
    'the norm rounded': lambda conv, norm: (norm.bfloat16(), norm.float()),
    'centre': lambda conv, norm: setattr(conv, 'center', False),
    'past the version, then eval': lambda conv, norm: (conv.weight.data.mul_(2), conv.eval()),
    'past the version, then train': lambda conv, norm: (
        conv.weight.data.mul_(2),
        conv.train(),
        conv.eval(),
    ),
}


def step(weight):
    weight.grad = torch.ones_like(weight)
    torch.optim.SGD([weight], 1.0).step()


@pytest.mark.parametrize('change', CHANGES)
def test_made_again_after_a_change(change, folds):
    conv = NCConv2d(4, 6, 3, bias=False, backend='aten')
    norm = NCAffine(6, allow_plain=True)
    nn.init.normal_(norm.weight)
    model = nn.Sequential(conv, norm)
    model(X), model.eval()
    with torch.no_grad():
        before = model(X)
        CHANGES[change](conv, norm)
        folds.clear()
        after = model(X)
        assert len(folds) == 1
        model(X)
        assert len(folds) == 1
        expected = copy.deepcopy(model).train()(X)  # keeps nothing
    torch.testing.assert_close(after, expected)
    assert not torch.equal(after, before)


def test_a_pair_folds_the_gain_of_the_norm(folds):
    conv, norm = NCConv2d(4, 6, 3, bias=False, backend='aten'), NCAffine(6)
    model = nn.Sequential(conv, norm)
    model(X), model.eval()
    with torch.no_grad():
        model(X), model(X)
    assert len(folds) == 1 and folds[0] == (conv.weight, norm.weight)


def test_each_compute_dtype_has_its_own(folds):
    layer, x = layer_of()
    with torch.no_grad():
        layer(x)
        with torch.autocast('cpu', torch.bfloat16):
            out = layer(x)
            assert out.dtype == torch.bfloat16
            torch.testing.assert_close(out, copy.deepcopy(layer).train()(x))
        assert layer(x).dtype == torch.float32
    assert len(folds) == 3


def test_not_in_training_nor_where_gradients_are_recorded(folds):
    layer, x = layer_of()
    layer(x).sum().backward()
    with torch.no_grad():
        layer.train()(x)
    assert not folds and layer.folded._kept is None
    layer.eval().requires_grad_(False)
    layer(x)
    assert len(folds) == 1
    layer(x.clone().requires_grad_()).sum().backward()
    assert len(folds) == 1


@pytest.mark.parametrize('mode', [torch.no_grad, torch.inference_mode])
def test_made_in_either_mode_it_serves_in_both(mode, folds):
    layer, x = layer_of()
    with mode():
        layer(x)
    with torch.no_grad():
        expected = layer(x)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), expected)
    assert len(folds) == 1
    layer(x).sum().backward()


def test_parameters_made_in_inference_mode_are_not_watched(folds):
    with torch.inference_mode():
        layer, x = layer_of()
        before = layer(x)
        layer.weight.mul_(2).add_(1)
        assert not torch.equal(layer(x), before)
    assert not folds


def test_leaves_no_trace_in_states_and_copies():
    layer, x = layer_of()
    names, size = list(layer.state_dict()), len(pickle.dumps(layer))
    with torch.no_grad():
        expected = layer(x)
        assert layer.folded._kept is not None
        assert list(layer.state_dict()) == names and len(pickle.dumps(layer)) == size
        for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert other.folded._kept is None
            torch.testing.assert_close(other(x), expected)


def test_backends_that_fold_nothing_keep_nothing():
    layer = NCConv2d(4, 6, 3, backend='reference').eval()
    with torch.no_grad():
        layer(X)
    assert layer.folded._kept is None


def test_the_swap_of_mmengines_ema_hook():
    """It writes through .data, which no version counter sees, and calls eval() or train() next."""
    pytest.importorskip('mmengine')
    from mmengine.hooks import EMAHook
    from mmengine.model import ExponentialMovingAverage

    layer, x = layer_of()
    model = nn.Sequential(layer)
    hook = EMAHook()
    hook.src_model, hook.ema_model = model, ExponentialMovingAverage(model)
    with torch.no_grad():
        averaged = model(x)
        layer.weight.mul_(2).add_(torch.randn(6, 4, 3, 3))
        trained = model(x)
        assert not torch.allclose(trained, averaged)
        for expected in (averaged, trained):
            hook._swap_ema_parameters()
            model.eval()
            torch.testing.assert_close(model(x), expected)
