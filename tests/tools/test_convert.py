"""tools/convert.py and tools/census.py: configs in, and a config out that stands alone."""

import json

import census
import convert
import pytest

pytest.importorskip('mmpretrain')
import train
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from nc_plugins import layer_census
from nc_plugins.engine.runner import load_config

MODEL = """
    type='ImageClassifier',
    backbone=dict(type='ResNet', depth=18, stem_channels=8, base_channels=8, norm_cfg=norm),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=64),
    data_preprocessor=dict(mean=[1.0, 2.0, 3.0], std=[1.0, 1.0, 1.0]),
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with child.py, which inherits base.py."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'base.py').write_text(
        f"norm = dict(type='BN')\nmodel = dict({MODEL})\ndefault_scope = 'mmpretrain'\n"
    )
    (tmp_path / 'child.py').write_text("_base_ = 'base.py'\nmodel = dict(head=dict(topk=(1,)))\n")
    return tmp_path


def counts(cfg):
    init_default_scope('mmpretrain')
    return {kind: n for kind, n in layer_census(MODELS.build(cfg.model)).items() if n}


def test_the_new_config_stands_alone_and_has_the_options(folder, capsys):
    options = ['--to', 'WS+GN', '--keep', 'backbone.conv1', '*.layer4', '--depthwise', 'convert']
    assert convert.main(['child.py', *options, '--out', 'new.py']) == 0
    out = capsys.readouterr().out
    assert 'backbone.layer1.0.bn1' in out and 'keep' in out  # the plan
    assert out.endswith('written: new.py\n')
    for name in ('base.py', 'child.py'):
        (folder / name).unlink()
    cfg = Config.fromfile('new.py')
    assert cfg.model.to_dict() == {
        'type': 'NCModel',
        'to': 'WS+GN',
        'keep': ['backbone.conv1', '*.layer4'],
        'depthwise': 'convert',
        'model': cfg.model.model.to_dict(),
    }
    assert cfg.model.model.head.topk == (1,)
    assert cfg.custom_imports['imports'] == ['nc_plugins']
    assert counts(cfg) == {'ConvWS': 14, 'conv': 6, 'GN': 14, 'BN': 6}
    assert not {'work_dir', 'launcher'} & {*cfg}


def test_it_is_what_train_does_with_to(folder):
    assert convert.main(['child.py', '--out', 'new.py', '--cfg-options', 'model.head.topk=2']) == 0
    options = ['--to', 'NC', '--cfg-options', 'model.head.topk=2']
    wanted = load_config(train.parse_args(['child.py', *options]))
    written = load_config(train.parse_args(['new.py']))
    assert written.model == wanted.model
    assert counts(written) == {'NC': 20, 'NCAffine': 20}


def test_a_config_of_classes_in_place_of_names(folder):
    """mmengine's new style: `from mmpretrain.models import ResNet`, no strings."""
    (folder / 'new_style.py').write_text(
        'from mmpretrain.models import GlobalAveragePooling, ImageClassifier, LinearClsHead\n'
        'from mmpretrain.models import ResNet\n'
        "norm = dict(type='BN')\n"
        "default_scope = 'mmpretrain'\n"
        f'model = dict({MODEL})\n'.replace("type='ImageClassifier'", 'type=ImageClassifier')
        .replace("type='ResNet'", 'type=ResNet')
        .replace("type='GlobalAveragePooling'", 'type=GlobalAveragePooling')
        .replace("type='LinearClsHead'", 'type=LinearClsHead')
    )
    assert convert.main(['new_style.py', '--out', 'new.py']) == 0
    assert counts(Config.fromfile('new.py')) == {'NC': 20, 'NCAffine': 20}


def test_json_stays_json(folder):
    cfg = Config.fromfile('child.py').to_dict()
    (folder / 'c.json').write_text(json.dumps(cfg))
    assert convert.main(['c.json', '--out', 'new.json']) == 0
    assert counts(Config.fromfile('new.json')) == {'NC': 20, 'NCAffine': 20}


def test_a_dry_run_prints_the_plan_and_writes_nothing(folder, capsys):
    before = sorted(folder.iterdir())
    assert convert.main(['child.py', '--dry-run']) == 0
    assert '20 convolutions become NC, 20 norms become NC' in capsys.readouterr().out
    assert sorted(folder.iterdir()) == before


def test_an_existing_file_is_overwritten_with_force_alone(folder, capsys):
    (folder / 'new.py').write_text('mine')
    assert convert.main(['child.py', '--out', 'new.py']) == 1
    assert capsys.readouterr().err.startswith('error: new.py exists: choose another --out, or')
    assert (folder / 'new.py').read_text() == 'mine'
    assert convert.main(['child.py', '--out', 'new.py', '--force']) == 0
    assert Config.fromfile('new.py').model.type == 'NCModel'


@pytest.mark.parametrize(
    ('args', 'wanted'),
    [
        (['child.py'], '--out is missing: give the file to write, or --dry-run'),
        (['child.py', '--out', 'new.json'], '--out must end in .py as the config does, got new'),
        (['child.py', '--out', 'none/new.py'], 'the folder none, which does not exist'),
        (['chidl.py', '--out', 'new.py'], "there is no config chidl.py; did you mean 'child.py'?"),
        (
            ['child.py', '--out', 'new.py', '--keep', 'backbone.conv2'],
            "keep: the model has no module 'backbone.conv2'; did you mean 'backbone.conv1'?",
        ),
        (['child.py', '--out', 'new.py', '--to', 'BN'], 'nothing in the model of child.py can be'),
        (
            ['child.py', '--out', 'new.py', '--cfg-options', 'model.backbone.dpeth=18'],
            "unknown key 'dpeth' for ResNet in the config (model.backbone.dpeth)",
        ),
    ],
)
def test_a_mistake_is_one_sentence(args, wanted, folder, capsys):
    before = sorted(folder.iterdir())
    assert convert.main(args) == 1
    err = capsys.readouterr().err
    assert err.startswith('error: ') and wanted in err and err.count('\n') == 1
    assert sorted(folder.iterdir()) == before


def test_census(folder, capsys):
    assert census.main(['child.py']) == 0
    assert capsys.readouterr().out == 'layer census: 20 conv, 20 BN\n'
    assert census.main(['child.py', '--to', 'NC']) == 0
    assert 'layer census: 20 NC, 20 NCAffine\n' in capsys.readouterr().out
    assert census.main(['child.py', '--cfg-options', 'model.backbone.norm_cfg.type=NC']) == 1
    err = capsys.readouterr().err
    assert err.startswith('error: ') and "set conv_cfg=dict(type='NC')" in err
