"""A slot of the config that does not reach its layers is a warning that names the module."""

import time
from pathlib import Path

import pytest
import torch
from mmcv.cnn import build_conv_layer, build_norm_layer
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

import nc_plugins
from nc_plugins.engine.slots import ignored_slots
from nc_plugins.layers import HalfSwapError, NCAffine
from nc_plugins.ops import dispatch

NC = {'conv_cfg': {'type': 'NC'}, 'norm_cfg': {'type': 'NC'}}
BN = {'norm_cfg': {'type': 'BN'}}


@MODELS.register_module(force=True)
class Obedient(nn.Sequential):
    """Uses its slots."""

    def __init__(self, conv_cfg=None, norm_cfg=None):
        super().__init__(build_conv_layer(conv_cfg, 4, 4, 1), build_norm_layer(norm_cfg, 4)[1])


@MODELS.register_module(force=True)
class Deaf(nn.Sequential):
    """Ignores its slots, as BiSeNetV2 does."""

    def __init__(self, conv_cfg=None, norm_cfg=None):
        super().__init__(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))


@MODELS.register_module(force=True)
class Bare(nn.Sequential):
    """Uses conv_cfg and has no norm, as HRFPN."""

    def __init__(self, conv_cfg=None, norm_cfg=None):
        super().__init__(build_conv_layer(conv_cfg, 4, 4, 1))


@MODELS.register_module(force=True)
class SlotModel(BaseModel):
    def __init__(self, backbone, heads=(), data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.backbone = MODELS.build(backbone)
        self.heads = nn.ModuleList(MODELS.build(head) for head in heads)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        out = self.backbone(torch.stack(list(inputs)))
        return {'loss': sum(head(out).square().mean() for head in self.heads)}


def config(backbone, *heads, **top):
    return Config({'model': {'type': 'SlotModel', 'backbone': backbone, 'heads': heads}, **top})


DEAF = [
    "model.backbone.conv_cfg (type 'NC') had no effect: Deaf builds nothing from it, and its 1 "
    'convolutions with a norm stay: convert the model instead',
    "model.backbone.norm_cfg (type 'NC') had no effect: Deaf builds nothing from it, and its 1 "
    'norms stay: convert the model instead',
]
BARE = [
    "model.heads.1.norm_cfg (type 'NC') had no effect: Bare builds nothing from it",
]
TOP = [
    "conv_cfg (type 'NC') reached 1 of the 2 convolutions with a norm in SlotModel, but not "
    'backbone.0 (Conv2d): convert the model instead',
    "norm_cfg (type 'NC') reached 1 of the 2 norms in SlotModel, but not backbone.1 (BatchNorm2d)"
    ': convert the model instead',
]
CASES = {
    'a backbone that uses neither': (config({'type': 'Deaf', **NC}), DEAF),
    'one that uses both': (config({'type': 'Obedient', **NC}), []),
    'a model without NC': (config({'type': 'Deaf', **BN}), []),
    'a scope in the type': (
        config({'type': 'Deaf', 'conv_cfg': {'type': 'mmdet.NC'}}),
        ["model.backbone.conv_cfg (type 'NC') had no effect: Deaf"],
    ),
    'a class as the type': (
        config({'type': 'Deaf', 'norm_cfg': {'type': NCAffine}}),
        ["model.backbone.norm_cfg (type 'NCAffine') had no effect: Deaf"],
    ),
    'the second of two heads': (
        config({'type': 'Deaf'}, {'type': 'Obedient', **NC}, {'type': 'Bare', **NC}),
        BARE,
    ),
    'the top level, beside parts with other slots': (
        config({'type': 'Obedient', **BN}, {'type': 'Obedient', **NC}, **NC),
        TOP,
    ),
    'the top level, which the parts repeat': (config({'type': 'Obedient', **NC}, **NC), []),
}


@pytest.mark.parametrize('name', CASES)
def test_slots(name):
    cfg, wanted = CASES[name]
    found = ignored_slots(cfg, MODELS.build(cfg.model))
    assert len(found) == len(wanted)
    assert all(text.startswith(start) for text, start in zip(found, wanted, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ('scope', 'model', 'wanted'),
    [
        (
            'mmseg',
            {'type': 'BiSeNetV2'},
            ["conv_cfg (type 'NC') had no effect: BiSeNetV2", "norm_cfg (type 'NC') had no effect"],
        ),
        (
            'mmdet',
            {'type': 'HRFPN', 'in_channels': [4, 8], 'out_channels': 8},
            ["norm_cfg (type 'NC') had no effect: HRFPN builds nothing from it"],
        ),
    ],
)
def test_classes_of_upstream(scope, model, wanted):
    init_default_scope(scope)
    cfg = Config({'model': {**model, **NC}})
    found = ignored_slots(cfg, MODELS.build(cfg.model))
    assert len(found) == len(wanted)
    assert all(start in text for text, start in zip(found, wanted, strict=True))


def train(folder, cfg, **options):
    """Run mmengine's own Runner for two iterations. Returns the text of the log file."""
    runner = Runner(
        cfg.model,
        str(folder),
        train_dataloader=DataLoader([{'inputs': torch.randn(4, 4, 4)}] * 2, batch_size=1),
        train_cfg={'by_epoch': True, 'max_epochs': 1},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.1}},
        experiment_name=f'{folder.name}-{time.time_ns()}',
        cfg=cfg,
        **options,
    )
    try:
        runner.train()
    finally:
        text = ''.join(path.read_text() for path in Path(folder).glob('*/*.log'))
    return text


@pytest.mark.parametrize('hooks', [[], [{'type': 'NCCensusHook'}]])
def test_a_run_of_mmengine_warns_once_and_names_the_backend(tmp_path, monkeypatch, hooks):
    monkeypatch.setattr(dispatch, '_announced', set())
    cfg = config({'type': 'Deaf', **NC}, {'type': 'Obedient', **NC})
    lines = train(tmp_path, cfg, custom_hooks=hooks).splitlines()
    for start in DEAF:
        assert sum('WARNING' in line and start in line for line in lines) == 1
    assert sum("backend 'auto' runs " in line for line in lines) == 1


def test_the_warnings_come_before_the_error_of_half_a_swap(tmp_path):
    cfg = config({'type': 'Deaf'}, {'type': 'Obedient', **BN, **{'conv_cfg': NC['conv_cfg']}}, **NC)
    with pytest.raises(HalfSwapError, match='convert the model'):
        train(tmp_path, cfg)
    text = ''.join(path.read_text() for path in tmp_path.glob('*/*.log'))
    assert "norm_cfg (type 'NC') had no effect: SlotModel" in text


def test_the_hook_warns_where_no_layer_is_nc(tmp_path):
    cfg = config({'type': 'Deaf', **NC}, {'type': 'Deaf'})
    text = train(tmp_path, cfg, custom_hooks=[{'type': 'NCCensusHook'}])
    assert all(start in text for start in DEAF)


def test_a_config_whose_text_cannot_be_read_trains(tmp_path):
    """mmengine writes infinity as inf, which is no name in Python."""
    cfg = config({'type': 'Deaf', **NC}, {'type': 'Obedient', **NC}, limit=float('inf'))
    assert 'had no effect' not in train(tmp_path, cfg)


@pytest.mark.parametrize(('to', 'count'), [('GN', 0), ('BN', 0), ('NC', 1)])
def test_a_conversion_to_another_norm_replaces_the_layers_of_the_slots(to, count):
    cfg = {'model': {'type': 'NCModel', 'to': to, 'model': {'type': 'Bare', **NC}}}
    model = nc_plugins.convert(MODELS.build(cfg['model']['model']), to=to)[0]
    assert len(ignored_slots(cfg, model)) == count
