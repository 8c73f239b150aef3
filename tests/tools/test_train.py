"""tools/train.py and tools/test.py: whole runs in new processes, mistakes in this process."""

import importlib.util
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('mmpretrain')
import torch
import train
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / 'configs/classification/resnet18_gn_1xb2_digits.py'
DIGITS_NC = ROOT / 'configs/classification/resnet18_nc_1xb2_digits.py'
ITERATIONS = 10  # an epoch of the tiny folder: 20 images at batch 2


# The standard library has a module named test too.
spec = importlib.util.spec_from_file_location('test_tool', ROOT / 'tools' / 'test.py')
test = importlib.util.module_from_spec(spec)
spec.loader.exec_module(test)


@pytest.fixture(scope='module')
def small(tiny_digits):
    """--cfg-options for the tiny folder and a narrow network."""
    roots = [f'{s}_dataloader.dataset.data_root={tiny_digits}' for s in ('train', 'val', 'test')]
    width = ['model.backbone.stem_channels=8', 'model.backbone.base_channels=8']
    return [*roots, *width, 'model.head.in_channels=64', 'default_hooks.logger.interval=5']


@pytest.fixture
def config(tmp_path, request):
    """Writes a config that inherits ``base``, under a name that no other test uses.

    mmengine names its logger after the config and the second, and two tests must not share it.
    """

    def write(text='', base=DIGITS):
        number = len(list(tmp_path.glob('*.py')))
        path = tmp_path / f'{abs(hash(request.node.name))}_{number}.py'
        path.write_text((f"_base_ = '{base}'\n" if base else '') + text)
        return str(path)

    return write


def run(name, *args, **env):
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', **env}
    command = [sys.executable, str(ROOT / 'tools' / f'{name}.py'), *map(str, args)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope='module')
def trained(small, tmp_path_factory):
    """The work_dir and the log of an NC training of one epoch by tools/train.py."""
    work_dir = tmp_path_factory.mktemp('runs') / 'work'
    options = ['--cfg-options', *small, 'train_cfg.max_epochs=1']
    done = run('train', DIGITS_NC, '--work-dir', work_dir, *options)
    assert done.returncode == 0, done.stderr[-3000:]
    return work_dir, done.stdout + done.stderr


def test_a_training_leaves_checkpoint_history_and_record(trained):
    work_dir, log = trained
    assert (work_dir / 'epoch_1.pth').is_file()
    assert list(work_dir.glob('best_accuracy_top1_epoch_1.pth'))
    assert list(work_dir.rglob('events.out.tfevents*'))
    record = json.loads((work_dir / 'record.json').read_text())
    assert record['finished'] is True
    assert record['max_iters'] == ITERATIONS
    assert record['census']['NC'] == record['census']['NCAffine'] == 20
    assert set(record['metrics']) >= {'accuracy/top1', 'val/loss'}
    assert 'layer census: 20 NC, 20 NCAffine' in log


def test_resume_goes_on_and_the_test_tool_evaluates(trained, small, tmp_path):
    work_dir, _ = trained
    options = ['--cfg-options', *small, 'train_cfg.max_epochs=2']
    done = run('train', DIGITS_NC, '--work-dir', work_dir, '--resume', *options)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f'resumed epoch: 1, iter: {ITERATIONS}' in done.stdout + done.stderr
    events = [json.loads(x) for x in (work_dir / 'history.jsonl').read_text().splitlines()]
    assert [e['epoch'] for e in events if e['event'] == 'val'] == [1, 2]

    checkpoint, out = work_dir / 'epoch_2.pth', tmp_path / 'predictions.pkl'
    options = ['--work-dir', tmp_path / 'test', '--out', out, '--cfg-options', *small]
    done = run('test', DIGITS_NC, checkpoint, *options)
    assert done.returncode == 0, done.stderr[-3000:]
    (scalars,) = (p for p in (tmp_path / 'test').glob('*/*.json'))
    tested = json.loads(scalars.read_text())
    trained_metrics = json.loads((work_dir / 'record.json').read_text())['metrics']
    for key in ('accuracy/top1', 'val/loss'):
        assert tested[key] == pytest.approx(trained_metrics[key], rel=1e-5)
    assert len(pickle.loads(out.read_bytes())) == 10


def test_the_tool_runs_upstreams_config_with_two_words_changed(config, tiny_digits, tmp_path):
    """Without custom_imports and our hooks: tools/train.py adds both."""
    data = f"_delete_=True, type='CustomDataset', data_root='{tiny_digits}'"
    data = f"dict({data}, data_prefix='%s', %s)"
    pipeline = "pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')]"
    loader = 'dict(batch_size=2, num_workers=0, dataset=' + data + ')\n'
    path = config(
        "_base_ = 'mmpretrain::resnet/resnet18_8xb16_cifar10.py'\n"
        "model = dict(backbone=dict(stem_channels=8, base_channels=8, conv_cfg=dict(type='NC'),\n"
        "    norm_cfg=dict(type='NC')), head=dict(in_channels=64))\n"
        'train_cfg = dict(max_epochs=1)\n'
        'train_dataloader = '
        + loader % ('train', pipeline)
        + 'val_dataloader = '
        + loader % ('val', pipeline)
        + 'test_dataloader = val_dataloader\n',
        base=None,
    )
    assert train.main([path, '--work-dir', str(tmp_path / 'w'), '--auto-scale-lr']) == 0
    record = json.loads((tmp_path / 'w' / 'record.json').read_text())
    assert record['census']['NC'] == record['census']['NCAffine'] == 20


SYNTAX = 'model = dict(\n'
HALF = "model = dict(backbone=dict(norm_cfg=dict(_delete_=True, type='NC')))\n"
BN_LEFT = HALF.replace('norm_cfg', "conv_cfg=dict(type='NC'), norm_cfg").replace(
    "'NC')))", "'BN')))"
)
MISTAKES = {
    'syntax': (SYNTAX, [], "does not load: SyntaxError: .*'\\(' was never closed"),
    'no model': ('model = None\n', [], 'has no model'),
    'no training': ('train_cfg = None\n', [], 'has no train_cfg, so there is nothing to train'),
    'half swap': (HALF, [], "nc1 .* after backbone.conv1 .* set conv_cfg=dict\\(type='NC'\\)"),
    'half swap, BN': (BN_LEFT, [], "BatchNorm2d.* set norm_cfg=dict\\(type='NC'\\)"),
    'scope': ("default_scope = 'mmdett'\n", [], "'mmdett' is not an inst.*did you mean 'mmdet'"),
    'top-level key': ('', ['modle.head.topk=1'], "unknown key 'modle'; did you mean 'model'?"),
    'list': ('', ['val_evaluator.7.topk=1'], 'does not fit the config: Index 7 exceeds'),
    'model key': ('', ['model.backbone.dpeth=18'], "unknown key 'dpeth' for ResNet"),
    'layer key': ('', ['model.backbone.norm_cfg.groups=2'], "unknown key 'groups' for GroupNorm"),
    'loader key': ('', ['train_dataloader.batchsize=4'], "unknown key 'batchsize' for DataLoader"),
    'optimizer key': ('', ['optim_wrapper.optimizer.lrr=1'], "unknown key 'lrr' for SGD"),
    'loop key': ('', ['train_cfg.max_epoch=1'], "unknown key 'max_epoch' for EpochBasedTrainLoop"),
    'hook key': ('', ['default_hooks.logger.every=1'], "unknown key 'every' for LoggerHook"),
    'seed key': ('', ['randomness.sede=1'], "unknown key 'sede'"),
    'hook name': (
        '',
        ['default_hooks.chekpoint.interval=1'],
        'default_hooks.chekpoint must be a dict with the key type, .* got {.interval.: 1}',
    ),
    'type': (
        '',
        ['model.backbone.type=ResNetAkt'],
        "unknown type 'ResNetAkt'.*did you mean 'ResNetAct'",
    ),
    'norm type': (
        '',
        ['model.backbone.norm_cfg.type=NCAfine'],
        "unknown type 'NCAfine'.*'NCAffine'",
    ),
    'type of another kind': (
        '',
        ['model.backbone.norm_cfg.type=CustomDataset'],
        r"unknown type 'CustomDataset'.* \(model.backbone.norm_cfg.type\)",
    ),
    'leftover': ('', ['model.backbone.norm_cfg.type=NC'], 'does not take num_groups=8'),
    'data root': (
        '',
        ['train_dataloader.dataset.data_root=none/here'],
        'train_dataloader: none/here does not exist; make it with `python -m nc_plugins make-dig',
    ),
    'data prefix': (
        '',
        ['val_dataloader.dataset.data_prefix=none'],
        '/none does not exist; make it',
    ),
    'other classes': ('', ['val_dataloader.dataset.data_prefix=train/3'], 'has 0 class folders'),
    'resume': ('', ['--resume', 'none.pth'], 'checkpoint none.pth does not exist'),
    'bad file': ('', ['--resume', __file__], 'test_train.py cannot be read: it is broken'),
    'base batch': (
        'auto_scale_lr = None\n',
        ['--auto-scale-lr'],
        '--auto-scale-lr needs auto_scale_lr.base_batch_size',
    ),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_a_mistake_is_one_sentence_and_leaves_no_results(mistake, config, small, tmp_path, capsys):
    text, extra, wanted = MISTAKES[mistake]
    flags = extra if extra and extra[0].startswith('--') else []
    options = [] if flags else extra
    work_dir = tmp_path / 'not' / 'yet'
    args = [config(text), '--work-dir', str(work_dir), *flags, '--cfg-options', *small, *options]
    assert train.main(args) == 1
    assert_one_sentence(capsys, wanted, work_dir)


def results_in(work_dir):
    """Files that look like results of a training."""
    names = ('*.pth', '*.partial', 'record.json', 'history.jsonl', 'last_checkpoint')
    return [path for name in names for path in work_dir.rglob(name)]


def assert_one_sentence(capsys, wanted, work_dir=None):
    """``work_dir`` has no results, and the traceback if the sentence names its file."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1
    assert re.search(wanted, lines[0]), lines[0]
    if work_dir is not None:
        log = work_dir / 'error.log'
        assert log.exists() == (str(log) in lines[0])
        assert not results_in(work_dir)
        assert not log.exists() or 'Traceback (most recent call last)' in log.read_text()


def test_a_missing_config_names_its_neighbour(tmp_path, capsys):
    assert train.main([str(DIGITS).replace('_gn_', '_gm_')]) == 1
    assert_one_sentence(capsys, "there is no config .*; did you mean 'resnet18_gn_1xb2_digits.py'")


@pytest.mark.skipif(torch.cuda.is_available(), reason='the mistake is --amp without a GPU')
def test_amp_wants_a_gpu(config, tmp_path, capsys):
    assert train.main([config(), '--amp', '--work-dir', str(tmp_path / 'w')]) == 1
    assert_one_sentence(capsys, '--amp needs a GPU')
    assert not (tmp_path / 'w').exists()


@pytest.mark.parametrize('option', ['lr', 'a=(1,2', '=3'])
def test_an_option_that_is_no_assignment(option, config, capsys):
    with pytest.raises(SystemExit) as stop:
        train.main([config(), '--cfg-options', option])
    assert stop.value.code == 2
    assert 'error: --cfg-options' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('args', 'wanted'),
    [
        (['none.pth'], 'checkpoint none.pth does not exist'),
        ([__file__], 'test_train.py cannot be read: it is broken'),
        ([__file__, '--out', 'x.json'], '--out must end in .pkl or .pickle, got x.json'),
    ],
)
def test_mistakes_of_the_test_tool(args, wanted, config, small, tmp_path, capsys):
    work_dir = tmp_path / 'not' / 'yet'
    assert test.main([config(), *args, '--work-dir', str(work_dir), '--cfg-options', *small]) == 1
    assert_one_sentence(capsys, wanted, work_dir)


def test_mmdet_configs_want_mmcvs_operators(config, tmp_path, capsys, monkeypatch):
    from nc_plugins.engine import preflight

    text = "default_scope = 'mmdet'\n"
    monkeypatch.setattr(preflight, 'find_spec', lambda name: None)
    assert train.main([config(text), '--work-dir', str(tmp_path / 'w')]) == 1
    assert_one_sentence(capsys, 'needs mmdet, which is not installed: pip install onedl-mmdet')

    monkeypatch.setattr(preflight, 'find_spec', lambda name: name)
    monkeypatch.setitem(sys.modules, 'mmcv._ext', None)
    assert train.main([config(text), '--work-dir', str(tmp_path / 'w')]) == 1
    assert_one_sentence(capsys, "mmdet needs mmcv's compiled operators, and .*install-mmcv")


@HOOKS.register_module(force=True)
class FailAt(Hook):
    """Raises an error after ``iteration`` iterations, or before the first one for 0."""

    def __init__(self, iteration):
        self.iteration = iteration

    def before_train(self, runner):
        if self.iteration == 0:
            raise RuntimeError('not foreseen')

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if batch_idx + 1 == self.iteration:
            raise RuntimeError('not foreseen')


@pytest.mark.parametrize(('iteration', 'existed'), [(0, False), (0, True), (3, False)])
def test_the_unforeseen_is_one_sentence(iteration, existed, config, small, tmp_path, capsys):
    work_dir = tmp_path / 'a' / 'b'
    if existed:
        work_dir.mkdir(parents=True)
        (work_dir / 'mine.txt').write_text('keep me')
    path = config(f"custom_hooks = [dict(type='FailAt', iteration={iteration})]\n")
    assert train.main([path, '--work-dir', str(work_dir), '--cfg-options', *small]) == 1
    when = f' after {iteration - 1} iterations' if iteration else ''
    wanted = rf'custom_hooks.0 \(FailAt\){when}: RuntimeError: not foreseen; .*error.log'
    assert_one_sentence(capsys, wanted)
    assert 'RuntimeError: not foreseen' in (work_dir / 'error.log').read_text()
    # What a run leaves that ended its first iteration, and what was there before.
    assert (work_dir / 'history.jsonl').exists() == (iteration > 0)
    assert (work_dir / 'mine.txt').exists() == existed
