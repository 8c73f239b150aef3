"""Networks of torchvision and timm train after the conversion, and lead back."""

import sys
from functools import partial
from pathlib import Path

import pytest
import torch

pytest.importorskip('timm')
sys.path.append(str(Path(__file__).resolve().parents[2] / 'tools'))
import timm
import torchvision
from sweep_convert import check, networks
from torch import nn

import nc_plugins
from nc_plugins.layers import join_affines, layer_census
from nc_plugins.layers.conv import NCConv2dSame
from nc_plugins.layers.norm import NCAffineAct, channel_affine

FAST = ['torchvision resnet18', 'torchvision mobilenet_v3_small', 'timm mobilenetv3_small_050']
SLOW = ['torchvision maskrcnn_resnet50_fpn', 'torchvision deeplabv3_resnet50']
SLOW += ['torchvision densenet121', 'timm efficientnet_b0', 'timm res2net50_26w_4s']
SLOW += ['timm resnetv2_50', 'timm resnetv2_50x1_bit', 'timm tf_efficientnet_b0']


@pytest.mark.parametrize(
    'name', [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_network(name):
    build = dict(networks())[name]
    model = build()
    norms = sum(isinstance(m, (nn.BatchNorm2d, nn.GroupNorm)) for m in model.modules())
    check(model)
    census = layer_census(model)
    assert census['BN'] == 0
    assert census['NCAffine'] + census['GN'] == norms


def with_activation(norm):
    """Each convolution has a norm with an activation; the second norm has no activation."""
    build = timm.layers.ConvNormAct
    second = build(8, 8, 1, norm_layer=norm, apply_act=False)
    return nn.Sequential(build(3, 8, 3, stride=2, padding='same', norm_layer=norm), second)


@pytest.mark.parametrize(
    ('norm', 'kind'),
    [
        (timm.layers.BatchNormAct2d, 'BN'),
        (partial(timm.layers.GroupNormAct, num_groups=2), 'GN'),
        (timm.layers.GroupNorm1Act, 'GN'),
        (timm.layers.LayerNormAct2d, 'PN'),
        (timm.layers.LayerNormAct2dFp32, 'PN'),
    ],
)
def test_the_activation_of_timms_norms_stays(norm, kind):
    model = with_activation(norm)
    x, original = torch.randn(2, 3, 9, 9), repr(model)
    expected = None if kind == 'BN' else model(x)
    nc_plugins.convert(model)
    first, second = model
    assert type(first.conv) is NCConv2dSame and type(first.bn) is NCAffineAct
    nn.init.normal_(first.bn.weight), nn.init.normal_(first.bn.bias)
    out = first(x)
    plain = channel_affine(first.conv(x), first.bn.weight, first.bn.bias)
    torch.testing.assert_close(out, plain.relu())
    assert out.shape == (2, 8, 5, 5) and second(out).min() < 0
    nn.init.ones_(first.bn.weight), nn.init.zeros_(first.bn.bias)
    nc_plugins.convert(model, 'IN')
    assert first(x).min() == 0 and second(first(x)).min() < 0
    nc_plugins.convert(model, kind)
    assert repr(model) == original
    if expected is not None:
        torch.testing.assert_close(model(x), expected)


def test_norms_with_an_activation_are_joined_and_deployed():
    model = nc_plugins.convert(with_activation(timm.layers.BatchNormAct2d))[0]
    for norm in (model[0].bn, model[1].bn):
        nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    x = torch.randn(2, 3, 9, 9)
    out = model(x)
    cotangent = torch.randn_like(out)
    gradients = torch.autograd.grad(out, list(model.parameters()), cotangent)
    assert join_affines(model) == 2
    joined = model(x)
    torch.testing.assert_close(joined, out)
    torch.testing.assert_close(
        torch.autograd.grad(joined, list(model.parameters()), cotangent), gradients
    )
    torch.testing.assert_close(nc_plugins.deploy(model)(x), out)


def test_calibration_of_norms_with_an_activation():
    model = nn.Sequential(timm.layers.ConvNormAct(3, 8, 3), timm.layers.ConvNormAct(8, 8, 3))
    x = torch.randn(4, 3, 9, 9)
    for _ in range(30):
        model(x)
    seen = []
    for block in model:
        block.bn.act.register_forward_pre_hook(lambda _, args: seen.append(args[0].mean((0, 2, 3))))
    model.eval()(x)
    nc_plugins.convert(model, calibrate=x)
    model(x)
    for before, after in zip(seen[:2], seen[-2:], strict=True):
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_every_network_of_torchvision_is_in_the_sweep():
    names = {name for name, _ in networks()}
    assert {f'torchvision {name}' for name in torchvision.models.list_models()} - names == {
        f'torchvision {name}'
        for name in torchvision.models.list_models()
        if name.startswith(('quantized_', 'raft_'))
    }
