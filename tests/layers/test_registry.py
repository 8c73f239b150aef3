"""The two words in a config, from every scope; imports that repeat; torch alone."""

import importlib
import subprocess
import sys

import pytest
import torch
from torch import nn

pytest.importorskip('mmengine')
pytest.importorskip('mmcv')
from mmcv.cnn import ConvModule, build_conv_layer, build_norm_layer
from mmcv.cnn.bricks.norm import is_norm
from mmengine.model import BaseModule
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope, Registry

from nc_plugins.layers import (
    NCAffine,
    NCConv1d,
    NCConv2d,
    NCConv3d,
    NCConvTranspose2d,
    PositionalNorm,
    registry,
)

WHOLE = {'conv_cfg': {'type': 'NC'}, 'norm_cfg': {'type': 'NC'}}


@pytest.mark.parametrize(
    ('name', 'layer'),
    [
        ('NC', NCConv2d),
        ('NC1d', NCConv1d),
        ('NC2d', NCConv2d),
        ('NC3d', NCConv3d),
        ('NCWS', NCConv2d),
        ('NCDeconv', NCConvTranspose2d),
    ],
)
def test_conv_slot(name, layer):
    built = build_conv_layer({'type': name, 'eps': 0.1}, 4, 6, 3, stride=2, bias=False)
    assert type(built) is layer and built.eps == 0.1
    assert built.weight_standardize == (name == 'NCWS')
    by_keyword = build_conv_layer(
        {'type': name}, in_channels=4, out_channels=6, kernel_size=3, padding=1
    )
    assert type(by_keyword) is layer


@pytest.mark.parametrize(
    ('name', 'layer', 'attribute'),
    [('NC', NCAffine, 'nc1'), ('NCAffine', NCAffine, 'nc1'), ('PN', PositionalNorm, 'pn1')],
)
def test_norm_slot(name, layer, attribute):
    built_name, built = build_norm_layer({'type': name}, 6, postfix=1)
    assert type(built) is layer and built_name == attribute and is_norm(built)
    frozen = build_norm_layer({'type': name, 'requires_grad': False}, num_features=6)[1]
    assert not any(p.requires_grad for p in frozen.parameters())


def test_two_words_are_the_whole_edit():
    module = ConvModule(3, 8, 3, padding=1, **WHOLE)
    assert type(module.conv) is NCConv2d and type(module.norm) is NCAffine
    assert module.conv.bias is None
    module(torch.randn(2, 3, 6, 6)).square().mean().backward()
    assert module.norm.weight.grad.abs().max() > 0


def test_transposed_in_a_conv_module():
    module = ConvModule(3, 8, 4, stride=2, padding=1, conv_cfg={'type': 'NCDeconv'},
                        norm_cfg={'type': 'NC'})  # fmt: skip
    assert module(torch.randn(2, 3, 6, 6)).shape == (2, 8, 12, 12)


@pytest.mark.parametrize(
    ('cfg', 'match'),
    [
        (
            {'norm_cfg': {'type': 'NC', 'num_groups': 32}},
            r'num_groups=32: remove the key; if a base config sets it, .*_delete_=True',
        ),
        ({'conv_cfg': {'type': 'NC', 'epsilon': 1}}, r'conv_cfg .* does not take epsilon=1'),
    ],
)
def test_left_over_keys_name_the_fix(cfg, match):
    with pytest.raises(TypeError, match=match):
        ConvModule(3, 8, 3, **{**WHOLE, **cfg})


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain'])
def test_found_from_child_scopes(scope):
    child = Registry('model', parent=MODELS, scope=f'{scope}_child', locations=[])
    assert child.get('NC') is registry.NC and child.get('PN') is PositionalNorm
    DefaultScope.get_instance(f'nc-{scope}', scope_name=scope)
    assert type(build_conv_layer({'type': 'NC'}, 4, 6, 3)) is NCConv2d


def test_second_import_changes_nothing_and_strangers_are_not_overwritten():
    importlib.reload(registry)
    assert type(build_conv_layer({'type': 'NC'}, 4, 6, 3)) is NCConv2d
    with pytest.raises(KeyError, match="'PN' is already registered"):
        registry.register(MODELS, 'PN', nn.Conv2d)
    assert MODELS.get('PN') is PositionalNorm


def test_selu_can_be_named():
    assert isinstance(MODELS.build({'type': 'SELU', 'inplace': True}), nn.SELU)


def test_mmengine_treats_the_norm_slot_as_a_norm():
    class Net(BaseModule):
        def __init__(self):
            super().__init__(
                init_cfg=[
                    {'type': 'Constant', 'val': 3, 'layer': 'Conv2d'},
                    {'type': 'Constant', 'val': 5, 'layer': ['_BatchNorm', 'GroupNorm']},
                ]
            )
            self.conv = build_conv_layer({'type': 'NC'}, 3, 8, 3)
            self.norm = build_norm_layer({'type': 'NC'}, 8)[1]

    net = Net()
    net.init_weights()
    assert (net.conv.weight == 3).all() and (net.norm.weight == 5).all()
    wrapper = build_optim_wrapper(
        net,
        {
            'optimizer': {'type': 'SGD', 'lr': 1.0, 'weight_decay': 0.1},
            'paramwise_cfg': {'norm_decay_mult': 0.0},
        },
    )
    decay = {id(p): g['weight_decay'] for g in wrapper.param_groups for p in g['params']}
    assert decay[id(net.norm.weight)] == 0 and decay[id(net.conv.weight)] == 0.1


def test_works_with_torch_alone():
    """OpenMMLab hidden from the import system: the package still imports and runs."""
    script = """
import sys

for name in ('mmengine', 'mmcv', 'mmpretrain', 'mmdet', 'mmseg'):
    sys.modules[name] = None  # what Python takes for "not installed"
import torch
import nc_plugins
from nc_plugins.layers import NCConv2d
print(NCConv2d(3, 8, 3)(torch.randn(1, 3, 6, 6)).shape)
"""
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'torch.Size([1, 8, 4, 4])' in done.stdout


def test_delete_is_not_advised_where_it_is_set():
    cfg = {'type': 'NC', '_delete_': True, 'groups': 2}
    with pytest.raises(TypeError, match=r'does not take groups=2: remove the key$'):
        build_norm_layer(cfg, 4)


def test_delete_where_nothing_is_inherited():
    """mmengine leaves ``_delete_`` in such a dict, and the advice to set it must be safe."""
    cfg = {'_delete_': True}
    assert isinstance(MODELS.build({'type': 'NC', 'num_features': 4, **cfg}), NCAffine)
    options = {'in_channels': 3, 'out_channels': 4, 'kernel_size': 3, **cfg}
    assert isinstance(MODELS.build({'type': 'NC', **options}), NCConv2d)
    assert MODELS.build({'type': 'NCWS', **options}).weight_standardize
