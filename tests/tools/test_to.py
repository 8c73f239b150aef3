"""tools/train.py and tools/test.py with --to: any config with another kind of normalisation."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('mmpretrain')
import cv2
import numpy as np
import train
from mmengine.registry import MODELS, init_default_scope

from nc_plugins import layer_census
from nc_plugins.engine.runner import load_config
from nc_plugins.engine.usage import UsageError

ROOT = Path(__file__).parents[2]
DIGITS = 'configs/classification/resnet18_gn_1xb2_digits.py'
NARROW = ['model.backbone.stem_channels=8', 'model.backbone.base_channels=8']
NARROW += ['model.head.in_channels=64']


@pytest.mark.parametrize(('to', 'conv', 'norm'), [('NC', 'NC', 'NCAffine'), ('BN', 'conv', 'BN')])
def test_the_model_is_converted_and_its_options_and_names_stay(to, conv, norm):
    args = ['--cfg-options', *NARROW]
    plain = load_config(train.parse_args([str(ROOT / DIGITS), *args]))
    cfg = load_config(train.parse_args([str(ROOT / DIGITS), '--to', to, *args]))
    assert cfg.work_dir == f'work_dirs/resnet18_gn_1xb2_digits_to-{to.lower()}'
    init_default_scope('mmpretrain')
    model, names = MODELS.build(cfg.model), MODELS.build(plain.model).state_dict().keys()
    assert {kind: n for kind, n in layer_census(model).items() if n} == {conv: 20, norm: 20}
    assert model.state_dict().keys() >= names


def test_modules_can_be_kept():
    arguments = [str(ROOT / DIGITS), '--to', 'NC', '--keep', 'backbone.layer4', '*.downsample']
    cfg = load_config(train.parse_args([*arguments, '--cfg-options', *NARROW]))
    init_default_scope('mmpretrain')
    counts = layer_census(MODELS.build(cfg.model))
    # 5 of 20 pairs are in layer4, and 2 more convolutions in a downsample.
    assert (counts['NC'], counts['conv'], counts['GN']) == (13, 7, 7)


@pytest.mark.parametrize('options', [['--keep', 'backbone'], ['--depthwise', 'convert']])
def test_options_of_a_conversion_need_one(options):
    with pytest.raises(UsageError, match=f'{options[0]} is an option of a conversion: add --to'):
        load_config(train.parse_args([str(ROOT / DIGITS), *options]))


def test_imports_are_not_options():
    """They run when the config file is read, so an option would have no effect."""
    args = train.parse_args([str(ROOT / DIGITS), '--cfg-options', 'custom_imports.imports=[json]'])
    with pytest.raises(UsageError, match='custom_imports comes too late'):
        load_config(args)


def test_an_unknown_kind_is_refused(capsys):
    with pytest.raises(SystemExit):
        train.parse_args([DIGITS, '--to', 'XN'])
    assert "argument --to: invalid choice: 'XN'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ('args', 'wanted'),
    [
        ([], '--calibrate fits the norms of a converted model: add --to'),
        (['--to', 'BN'], '--calibrate does not set the running statistics of BatchNorm, which'),
        (['--to', 'NC', '--launcher', 'pytorch'], '--calibrate works with one process, and --laun'),
        (['--to', 'NC', '--calibrate', '0'], 'a number of images of at least 1, got 0'),
    ],
)
def test_wrong_calibrations(args, wanted, tmp_path, capsys):
    config = ['configs/classification/resnet18_gn_1xb2_digits.py', '--work-dir', str(tmp_path)]
    assert train.main([str(ROOT / config[0]), *config[1:], '--calibrate', '8', *args]) == 1
    err = capsys.readouterr().err
    assert err.startswith('error: ') and wanted in err and err.count('\n') == 1
    assert not [*tmp_path.iterdir()]


def run(tool, *args):
    command = [sys.executable, str(ROOT / 'tools' / tool), *map(str, args)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    """Options for one epoch of a narrow network on twenty images."""
    rng, data = np.random.default_rng(0), tmp_path_factory.mktemp('digits')
    for name in [f'{split}/{label}' for split in ('train', 'val') for label in range(10)]:
        (data / name).mkdir(parents=True)
        cv2.imwrite(str(data / name / '0.png'), rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
    roots = [f'{s}_dataloader.dataset.data_root={data}' for s in ('train', 'val', 'test')]
    return [*roots, 'train_cfg.max_epochs=1']


@pytest.mark.slow
def test_training_and_testing_with_to(small, tmp_path):
    options = ['--to', 'NC', '--work-dir', tmp_path / 'work', '--cfg-options', *small, *NARROW]
    log = run('train.py', DIGITS, *options)
    assert 'convert to NC: 20 convolutions become NC, 20 norms become NC' in log
    assert '20 NC convolutions joined with their NCAffine' in log
    run('test.py', DIGITS, tmp_path / 'work' / 'epoch_1.pth', *options)
    assert json.loads((tmp_path / 'work' / 'record.json').read_text())['census']['NC'] == 20


@pytest.mark.slow
def test_a_written_config_trains_and_calibrates(small, tmp_path):
    new = tmp_path / 'new.py'
    run('convert.py', DIGITS, '--out', new, '--cfg-options', *NARROW)
    options = ['--work-dir', tmp_path / 'work', '--cfg-options', *small]
    log = run('train.py', new, '--calibrate', 8, *options)
    assert 'calibrated on 8 images: convert to NC: 20 convolutions' in log
    before, after = re.search(r'of the output: (\S+), after calibration (\S+)', log).groups()
    assert float(after) < float(before)
    assert json.loads((tmp_path / 'work' / 'record.json').read_text())['census']['NC'] == 20
