"""NCModel in configs of mmpretrain, mmseg and mmdet."""

import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from mmcv.cnn import ConvModule
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from mmcv.cnn.bricks.conv_ws import ConvAWS2d, ConvWS2d
from mmcv.cnn.bricks.wrappers import Conv2d
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

import nc_plugins
from nc_plugins.convert.openmmlab import convert_config
from nc_plugins.layers import NCAffine, NCConv2d, layer_census
from nc_plugins.layers.conv import NCConv2dSame

from .networks import X, step

RESNET = {
    'type': 'ImageClassifier',
    'backbone': {'type': 'ResNet', 'depth': 18, 'stem_channels': 8, 'base_channels': 8},
    'neck': {'type': 'GlobalAveragePooling'},
    'head': {'type': 'LinearClsHead', 'num_classes': 2, 'in_channels': 64},
}


def test_nc_model_builds_the_inner_model_and_keeps_its_names():
    init_default_scope('mmpretrain')
    plain = MODELS.build(RESNET)
    preprocessor = {'mean': [1.0, 2.0, 3.0], 'std': [1.0, 1.0, 1.0]}
    config = {'type': 'NCModel', 'model': RESNET, 'to': 'NC', 'data_preprocessor': preprocessor}
    model = MODELS.build(config)
    assert type(model) is type(plain)
    gone = ('running_mean', 'running_var', 'num_batches_tracked')
    kept = {name for name in plain.state_dict() if not name.endswith(gone)}
    assert set(model.state_dict()) == kept
    assert layer_census(model)['NC'] == layer_census(model)['NCAffine'] == 20
    assert model.data_preprocessor.mean.flatten().tolist() == [1, 2, 3]
    model.init_weights()
    assert model.backbone.layer1[0].bn1.weight.mean() == 1
    loss = model(X, mode='tensor')
    loss[0].square().sum().backward()


def test_an_unknown_option_of_nc_model_is_an_error():
    init_default_scope('mmpretrain')
    with pytest.raises(TypeError, match='too'):
        MODELS.build({'type': 'NCModel', 'model': RESNET, 'too': 'NC'})


@pytest.mark.parametrize(
    ('imports', 'expected'),
    [
        (None, ['nc_plugins']),
        ({'imports': 'os', 'allow_failed_imports': False}, ['os', 'nc_plugins']),
        ({'imports': ['nc_plugins']}, ['nc_plugins']),
    ],
)
def test_convert_config(imports, expected):
    cfg = Config({'model': RESNET, 'default_scope': 'mmpretrain', 'custom_imports': imports})
    convert_config(cfg, 'WS+GN', keep=['backbone.conv1'])
    assert cfg.custom_imports['imports'] == expected
    init_default_scope('mmpretrain')
    census = layer_census(MODELS.build(Config.fromstring(cfg.dump(), '.py').model))
    assert (census['ConvWS'], census['GN'], census['BN'], census['conv']) == (19, 19, 1, 1)


@pytest.mark.parametrize(
    ('conv', 'wanted'),
    [
        (Conv2d(3, 8, 3), NCConv2d),
        (Conv2dAdaptivePadding(3, 8, 3, 2), NCConv2dSame),
        (ConvWS2d(3, 8, 3), NCConv2d),
        (ConvAWS2d(3, 8, 3), NCConv2d),
    ],
)
def test_convolutions_of_mmcv(conv, wanted):
    model, original = nn.Sequential(conv, nn.BatchNorm2d(8)), type(conv)
    size, expected = model(X).shape, model.train()(X)
    keys = [key for key in model.state_dict() if 'running' not in key and 'tracked' not in key]
    nc_plugins.convert(model)
    assert type(conv) is wanted and conv.weight_standardize == ('WS' in original.__name__)
    assert model(X).shape == size and list(model.state_dict()) == keys
    nc_plugins.convert(model, 'BN')
    assert type(conv) is original
    torch.testing.assert_close(model(X), expected)


def test_the_padding_of_conv2d_adaptive_padding_is_the_same():
    plain = Conv2dAdaptivePadding(3, 8, 3, 2, bias=False)
    for size in (7, 8):
        model = nn.Sequential(Conv2dAdaptivePadding(3, 8, 3, 2, bias=False), nn.BatchNorm2d(8))
        model.load_state_dict({'0.weight': plain.weight}, strict=False)
        nc_plugins.convert(model)
        model[0].center = model[0].scale = False  # a plain convolution is left
        x = torch.randn(2, 3, size, size)
        torch.testing.assert_close(model[0](x), plain(x))


@pytest.mark.parametrize(
    ('order', 'pairs'),
    [
        (('conv', 'norm', 'act'), True),
        (('norm', 'act', 'conv'), True),
        (('act', 'conv', 'norm'), True),
        (('conv', 'act', 'norm'), False),
    ],
)
def test_the_order_of_conv_module(order, pairs):
    model = nn.Sequential(ConvModule(3, 3, 3, norm_cfg={'type': 'BN'}, order=order))
    nc_plugins.convert(model)
    assert isinstance(model[0].conv, NCConv2d) == isinstance(model[0].norm, NCAffine) == pairs
    step(model)


def test_deformable_convolutions_stay_and_say_so():
    conv = {'type': 'DCNv2'}
    model = ConvModule(3, 8, 3, padding=1, conv_cfg=conv, norm_cfg={'type': 'BN'})
    _, report = nc_plugins.convert(model)
    kinds = {row.path: (row.kind, row.reason) for row in report.rows}
    assert kinds['conv'] == (
        None,
        'NC has no form of mmcv.ModulatedDeformConv2dPack',
    )
    assert kinds['bn'] == ('GN', 'conv before it stays')


def upstream(scope, file):
    """The model config of an upstream config, without pretrained weights."""
    import_module(scope)
    folder = Path(sys.modules[scope].__file__).parent / '.mim' / 'configs'
    init_default_scope(scope)
    model = Config.fromfile(folder / file).model
    model.pop('pretrained', None)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ('scope', 'file', 'left'),
    [
        ('mmdet', 'rtmdet/rtmdet_tiny_8xb32-300e_coco.py', 8),  # shared convolutions in the head
        ('mmseg', 'bisenetv2/bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024.py', 17),
        ('mmseg', 'hrnet/fcn_hr18s_4xb2-40k_cityscapes-512x1024.py', 0),
        ('mmdet', 'retinanet/retinanet_r50_fpn_1x_coco.py', 0),
    ],
)
def test_networks_that_the_two_slots_swap_in_part(scope, file, left):
    """No BatchNorm is left, and GroupNorm stands behind depthwise convolutions alone."""
    plain = layer_census(MODELS.build(upstream(scope, file)))
    model = MODELS.build({'type': 'NCModel', 'model': upstream(scope, file)})
    census = layer_census(model)
    assert (census['BN'], census['GN']) == (0, left)
    assert census['NCAffine'] == plain['BN'] - left
    with torch.no_grad():  # the first forward checks every pair
        model.eval()(torch.randn(1, 3, 64, 64), mode='tensor')
