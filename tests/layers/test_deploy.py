"""deploy(): a copy for inference with the same outputs, which cannot be trained by mistake."""

import copy
import pickle

import pytest
import torch
from torch import nn

import nc_plugins
from nc_plugins.layers import (
    NCAffine,
    NCConv1d,
    NCConv2d,
    NCConv3d,
    NCConvTranspose2d,
    join_affines,
    layer_census,
)

from .models import NormFirst, X, pair, randomize

KINDS = {
    'pair': (NCConv2d, {}, X),
    'bias': (NCConv2d, {'bias': True, 'stride': 2, 'padding': 1}, X),
    'groups': (NCConv2d, {'groups': 2, 'padding': 'same'}, X),
    'weight standardised': (NCConv2d, {'weight_standardize': True}, X),
    'not centred': (NCConv2d, {'center': False}, X),
    'not scaled': (NCConv2d, {'scale': False}, X),
    'reflect': (NCConv2d, {'padding': 1, 'padding_mode': 'reflect'}, X),
    'pointwise': (NCConv2d, {'kernel_size': 1}, X),
    '1d': (NCConv1d, {'bias': True}, X[..., 0]),
    '3d': (NCConv3d, {}, X[..., None].repeat(1, 1, 1, 1, 4).cumsum(4)),
    'transposed': (NCConvTranspose2d, {'stride': 2, 'bias': True}, X),
}


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('backend', ['auto', 'aten', 'reference'])
def test_same_outputs(kind, backend):
    layer, options, x = KINDS[kind]
    model = pair(layer, backend=backend, **options)
    expected = model(x)
    names = list(model.state_dict())
    deployed = nc_plugins.deploy(model)
    for _ in range(2):
        with torch.inference_mode():
            torch.testing.assert_close(deployed(x), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(deployed(x.clone().requires_grad_()), expected)
    assert list(model.state_dict()) == names and model.training  # the model is untouched
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize('options', [{'affine': True}, {}])
def test_a_layer_without_a_norm(options):
    model = randomize(nn.Sequential(NCConv2d(4, 6, 3, **options)).double())
    torch.testing.assert_close(nc_plugins.deploy(model)(X), model(X))


def test_holds_the_centred_weight_and_nothing_to_train():
    model = pair(weight_standardize=True)
    join_affines(model)
    deployed = nc_plugins.deploy(model)
    assert not list(deployed.parameters())
    weight = deployed[0].folded_weight
    assert weight.shape == model[0].weight.shape and weight.mean((1, 2, 3)).abs().max() < 1e-12
    assert deployed[1](x := deployed[0](X)) is x
    assert layer_census(deployed)['NCWS'] == 1
    assert deployed[0].in_channels == 4 and deployed[0].kernel_size == (3, 3)


def test_later_writes_to_the_model_do_not_reach_the_copy():
    model = pair()
    deployed = nc_plugins.deploy(model)
    expected = deployed(X)
    model[0].weight.data.zero_()
    model[1].bias.data.zero_()
    torch.testing.assert_close(deployed(X), expected)


def test_training_is_refused():
    deployed = nc_plugins.deploy(nn.Sequential(pair(), nn.Conv2d(6, 2, 1)))
    assert not deployed.training
    deployed.eval()
    with pytest.raises(RuntimeError, match=r'made by nc_plugins\.deploy\(\) for inference: train'):
        deployed.train()


@pytest.mark.parametrize('strict', [True, False])
def test_training_checkpoints_are_refused(strict):
    model = nn.Sequential(pair(), nn.Conv2d(6, 2, 1)).double()
    deployed = nc_plugins.deploy(model)
    wanted = r'0\.0 was made by nc_plugins\.deploy\(\) .* no 0\.0\.folded_weight: load a training'
    with pytest.raises(RuntimeError, match=wanted):
        deployed.load_state_dict(model.state_dict(), strict=strict)
    with pytest.raises(RuntimeError, match='folded_weight'):
        model.load_state_dict(deployed.state_dict())
    other = nc_plugins.deploy(nn.Sequential(pair(), nn.Conv2d(6, 2, 1)).double())
    other.load_state_dict(deployed.state_dict())
    torch.testing.assert_close(other(X), deployed(X))


def test_copies_pickles_dtypes_and_graphs():
    model = pair(padding=1)
    deployed = nc_plugins.deploy(model)
    expected = deployed(X)
    for other in (copy.deepcopy(deployed), pickle.loads(pickle.dumps(deployed))):
        torch.testing.assert_close(other(X), expected)
    torch.testing.assert_close(nc_plugins.deploy(deployed)(X), expected)
    torch.testing.assert_close(torch.fx.symbolic_trace(deployed)(X), expected)
    torch.testing.assert_close(torch.export.export(deployed, (X,)).module()(X), expected)
    torch.testing.assert_close(torch.jit.trace(deployed, X)(X), expected)
    half = copy.deepcopy(deployed).bfloat16()(X.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), expected, rtol=0.1, atol=0.1)
    float32 = copy.deepcopy(deployed).float()
    with torch.autocast('cpu', torch.bfloat16):
        assert float32(X.float()).dtype == torch.bfloat16


def test_a_wrong_join_is_an_error_here_too():
    with pytest.raises(RuntimeError, match='norm is joined with conv'):
        nc_plugins.deploy(NormFirst().double())(X)


def test_weights_that_a_hook_computes_are_refused():
    model = nn.Sequential(torch.nn.utils.spectral_norm(NCConv2d(4, 6, 3)))
    with pytest.raises(ValueError, match=r'^0 has a forward pre-hook, .*remove_spectral_norm'):
        nc_plugins.deploy(model)
    parametrized = nn.Sequential(torch.nn.utils.parametrizations.weight_norm(NCConv2d(4, 6, 3)))
    parametrized.double()
    torch.testing.assert_close(nc_plugins.deploy(parametrized)(X), parametrized(X))


def test_shared_layers_are_deployed_once():
    conv = NCConv2d(4, 4, 3, padding=1, bias=False)
    model = randomize(nn.ModuleList([nn.Sequential(conv, NCAffine(4)) for _ in range(2)]).double())
    expected = [branch(X) for branch in model]
    for branch, out in zip(nc_plugins.deploy(model), expected, strict=True):
        torch.testing.assert_close(branch(X), out)


def test_transposed_output_size():
    model = NCConvTranspose2d(4, 6, 3, stride=2).double()
    expected = model(X, output_size=[16, 14])
    torch.testing.assert_close(nc_plugins.deploy(model)(X, output_size=[16, 14]), expected)
