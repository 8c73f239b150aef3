"""Networks of torchvision and timm train after the conversion, and lead back."""

import sys
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
from nc_plugins.convert.forms import NCAffineAct, NCConv2dSame
from nc_plugins.layers import layer_census

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


def test_the_activation_of_timms_batch_norm_stays():
    block = timm.layers.ConvNormAct(3, 8, 3, stride=2, padding='same')
    x, expected = torch.randn(2, 3, 9, 9), repr(block)
    nc_plugins.convert(block)
    assert type(block.conv) is NCConv2dSame and type(block.bn) is NCAffineAct
    out = block(x)
    torch.testing.assert_close(out, block.bn.weight.new_tensor(0).max(block.conv(x)))
    assert out.shape == (2, 8, 5, 5)
    nc_plugins.convert(block, 'GN')
    assert block(x).min() == 0
    nc_plugins.convert(block, 'BN')
    assert repr(block) == expected


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
