import json
import runpy
import subprocess
import time
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from nc_plugins import __version__
from nc_plugins.engine import checkpoints, record  # noqa: F401 (registers DurableCheckpointHook)
from nc_plugins.engine.record import RunRecordHook
from nc_plugins.report import fingerprint, read_run

IMAGES, BATCH = 12, 4
ITERATIONS = IMAGES // BATCH


class Toy(BaseModel):
    """A model with the losses 1, 2, 3, ..."""

    def __init__(self, seconds=0.0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.calls, self.seconds = 0, seconds

    def forward(self, inputs, data_samples=None, mode='tensor'):
        time.sleep(self.seconds if mode == 'loss' else 4 * self.seconds)
        if mode == 'predict':
            return [{} for _ in inputs]
        self.calls += 1
        return {'loss': self.calls + 0 * self.weight.sum()}


class Squares(BaseMetric):
    """Metrics that change with each validation. By default mmengine smooths 'squares/loss'."""

    default_prefix = 'squares'

    def __init__(self):
        super().__init__()
        self.calls = 0

    def process(self, data_batch, data_samples):
        self.results.extend(data_samples)

    def compute_metrics(self, results):
        self.calls += 1
        return {'loss': float(self.calls**2), 'top': torch.tensor(10 - self.calls), 'table': 'text'}


class Spy(Hook):
    priority = 'LOWEST'

    def __init__(self, stop_at=None):
        self.stop_at, self.present = stop_at, []

    def after_val_epoch(self, runner, metrics=None):
        runner.message_hub.update_info('nc_census', {'NC': 20})
        self.present.append((Path(runner.work_dir) / 'record.json').exists())
        if runner.iter == self.stop_at:
            raise RuntimeError('stop here')


def train(folder, hooks, model=None, iterations=None, evaluator=None, **more):
    data = [{'inputs': torch.zeros(1), 'data_samples': i} for i in range(IMAGES)]
    train_cfg = {'by_epoch': True, 'max_epochs': 4}
    if iterations:
        train_cfg = {'by_epoch': False, 'max_iters': iterations, 'val_interval': 2}
    runner = Runner(
        model or Toy(),
        work_dir=str(folder),
        train_dataloader=DataLoader(data, batch_size=BATCH),
        val_dataloader=DataLoader(data, batch_size=BATCH),
        train_cfg=train_cfg,
        val_cfg={},
        val_evaluator=evaluator or Evaluator([Squares()]),
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.1}},
        default_hooks={
            'logger': {'type': 'LoggerHook', 'interval': 1},
            'checkpoint': {'type': 'DurableCheckpointHook', 'interval': 1},
        },
        custom_hooks=hooks,
        randomness={'seed': 5},
        log_processor={'by_epoch': not iterations},
        experiment_name=f'record-{folder.name}-{time.time_ns()}',
        cfg={'run_fingerprint': 'sha256:0011'},
        **more,
    )
    runner.train()
    return runner


def events(folder, kind):
    lines = (folder / 'history.jsonl').read_text().splitlines()
    return [e for e in map(json.loads, lines) if e['event'] == kind]


class ByClass(BaseMetric):
    """Metrics by class as in mmpretrain, ClassIoU and mmdet, and a list of another length."""

    def process(self, data_batch, data_samples):
        self.results.extend(data_samples)

    def compute_metrics(self, results):
        self.calls = getattr(self, 'calls', 0) + 1
        return {
            'single-label/recall_classwise': [1.0 * self.calls, 2.0],
            'coco/a/b_precision': 0.25,
            'coco/c_precision': 0.5,
            'coco/mAP': 0.375,
            'losses': [1.0, 2.0, 3.0],
        }


def test_metrics_by_class_are_kept_apart(tmp_path):
    evaluator = Evaluator([ByClass()])
    evaluator.dataset_meta = {'classes': ('a/b', 'c')}
    train(tmp_path, [RunRecordHook()], evaluator=evaluator)
    run = read_run('a.py', 0, tmp_path)
    assert run.validations[-1] == (4, {'coco/mAP': 0.375})
    assert run.per_class == {
        'single-label/recall': {'a/b': 4.0, 'c': 2.0},
        'coco/precision': {'a/b': 0.25, 'c': 0.5},
    }


def test_an_epoch_based_training_leaves_exact_values(tmp_path):
    spy = Spy()
    train(tmp_path, [RunRecordHook(warmup=2), spy])
    # Epoch k holds the losses 3k+1, 3k+2, 3k+3.
    assert events(tmp_path, 'train') == [
        {'event': 'train', 'epoch': k, 'iter': 3 * k, 'losses': {'loss': 3.0 * k - 1}}
        for k in (1, 2, 3, 4)
    ]
    validations = events(tmp_path, 'val')
    assert [(v['epoch'], v['iter']) for v in validations] == [(1, 3), (2, 6), (3, 9), (4, 12)]
    assert [v['metrics'] for v in validations] == [
        {'squares/loss': k**2, 'squares/top': 10 - k} for k in (1, 2, 3, 4)
    ]

    assert spy.present == [False] * 4
    found = json.loads((tmp_path / 'record.json').read_text())
    assert found['finished'] is True
    assert (found['fingerprint'], found['seed']) == ('sha256:0011', 5)
    assert (found['max_epochs'], found['max_iters']) == (4, 12)
    assert found['metrics'] == {'squares/loss': 16, 'squares/top': 6}
    assert found['metrics_min'] == {'squares/loss': 1, 'squares/top': 6}
    assert found['metrics_max'] == {'squares/loss': 16, 'squares/top': 9}
    assert found['memory_kind'] == 'process peak RSS'
    assert 100 < found['peak_memory_mb'] < 100_000
    assert 0 < found['train_seconds'] < found['total_seconds']
    assert found['device'].startswith('CPU ')
    assert found['threads'] == torch.get_num_threads()
    assert (found['torch'], found['nc_plugins']) == (torch.__version__, __version__)
    assert found['utc_start'] <= found['utc_end']
    assert found['census'] == {'NC': 20}
    assert not list(tmp_path.glob('*.partial'))


def test_mmengines_own_log_is_not_smoothed_over_validations(tmp_path):
    train(tmp_path, [RunRecordHook()])
    (scalars,) = tmp_path.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in scalars.read_text().splitlines()]
    assert [line['squares/loss'] for line in lines if 'squares/loss' in line] == [1, 4, 9, 16]


def test_an_iteration_based_training_counts_iterations(tmp_path):
    train(tmp_path, [RunRecordHook()], iterations=5)
    kept = [(e['epoch'], e['iter'], e['losses']['loss']) for e in events(tmp_path, 'train')]
    assert kept == [(None, 2, 1.5), (None, 4, 3.5), (None, 5, 5.0)]
    assert [(e['epoch'], e['iter']) for e in events(tmp_path, 'val')] == [
        (None, 2),
        (None, 4),
        (None, 5),
    ]
    found = json.loads((tmp_path / 'record.json').read_text())
    assert (found['max_epochs'], found['max_iters']) == (None, 5)


def test_speed_counts_training_after_the_warm_up_and_no_validation(tmp_path):
    seconds = 0.05
    train(tmp_path, [RunRecordHook(warmup=ITERATIONS)], Toy(seconds))
    found = json.loads((tmp_path / 'record.json').read_text())
    # Batches sleep 0.05 s in training and 0.2 s in validation. With validation: below 16.
    assert 30 < found['images_per_second'] <= BATCH / seconds
    assert found['train_seconds'] < 0.5 * found['total_seconds']


def test_a_training_no_longer_than_the_warm_up_has_no_speed(tmp_path):
    train(tmp_path, [RunRecordHook(warmup=12)])
    assert json.loads((tmp_path / 'record.json').read_text())['images_per_second'] is None


def test_a_training_that_fails_leaves_no_record(tmp_path):
    (tmp_path / 'record.json').write_text('{"finished": true}')
    with pytest.raises(RuntimeError, match='stop here'):
        train(tmp_path, [RunRecordHook(), Spy(stop_at=6)])
    assert not (tmp_path / 'record.json').exists()
    assert len(events(tmp_path, 'val')) == 2


def test_a_resumed_training_continues_its_history(tmp_path):
    with pytest.raises(RuntimeError, match='stop here'):
        train(tmp_path, [RunRecordHook(), Spy(stop_at=6)])
    with (tmp_path / 'history.jsonl').open('a') as file:
        file.write('{"event": "train", "epoch": 3, "iter": 9, "losses": {"loss": 99}}\n{"cut')
    train(tmp_path, [RunRecordHook()], resume=True)
    assert [e['epoch'] for e in events(tmp_path, 'train')] == [1, 2, 3, 4]
    assert [e['losses']['loss'] for e in events(tmp_path, 'train')][:2] == [2, 5]
    assert [e['epoch'] for e in events(tmp_path, 'val')] == [1, 2, 3, 4]


def test_the_times_of_a_resumed_training_are_summed(tmp_path):
    with pytest.raises(RuntimeError, match='stop here'):
        train(tmp_path, [RunRecordHook(), Spy(stop_at=6)], Toy(0.05))
    first = events(tmp_path, 'start')[0]['utc']
    time.sleep(1)  # the starts have another second
    train(tmp_path, [RunRecordHook()], Toy(), resume=True)
    found = json.loads((tmp_path / 'record.json').read_text())
    # The checkpoint is from iteration 6, after one of the two validations of 4 * 0.05 seconds.
    assert 0.3 < found['train_seconds'] < found['total_seconds']
    assert found['total_seconds'] > 0.5
    assert found['utc_start'] == events(tmp_path, 'start')[0]['utc'] == first


def test_the_report_reads_what_the_hook_writes(tmp_path):
    train(tmp_path, [RunRecordHook()])
    run = read_run('toy.py', 5, tmp_path, 'sha256:0011')
    assert (run.status, run.final_loss, run.last('squares/top')) == ('finished', 11.0, 6)
    assert run.best('squares/loss', lower_is_better=True) == 1
    assert not read_run('toy.py', 5, tmp_path, fingerprint({})).done


def test_only_a_training_is_recorded(tmp_path):
    runner = Runner(
        Toy(),
        work_dir=str(tmp_path),
        val_dataloader=DataLoader([{'inputs': torch.zeros(1)}] * 4),
        val_cfg={},
        val_evaluator=Evaluator([Squares()]),
        custom_hooks=[RunRecordHook()],
        experiment_name=f'val-{time.time_ns()}',
    )
    runner.val()
    assert not list(tmp_path.glob('*.json*'))


def test_the_largest_of_cudas_peaks_is_kept(tmp_path, monkeypatch):
    """LoggerHook resets CUDA's peak when it logs. Tested without a device."""
    peaks = [2**20 * mib for mib in (10, 700, 20, *[15] * 9)]
    waits = []
    monkeypatch.setattr(torch.cuda, 'max_memory_allocated', lambda device: peaks.pop(0))
    monkeypatch.setattr(torch.cuda, 'synchronize', waits.append)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: 'GPU of the test')

    class Pretend(Hook):
        priority = 'LOWEST'

        def before_train(self, runner):
            hook._device = torch.device('cuda')

    hook = RunRecordHook(warmup=2)
    train(tmp_path, [hook, Pretend()])
    found = json.loads((tmp_path / 'record.json').read_text())
    assert (found['peak_memory_mb'], found['memory_kind']) == (700, 'cuda allocated')
    assert found['device'] == 'GPU of the test'
    # One wait at the end of the warm-up and one after each epoch.
    assert (peaks, len(waits)) == ([], 5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_cuda_memory_survives_the_loggers_resets(tmp_path):
    class Greedy(Toy):
        def forward(self, inputs, data_samples=None, mode='tensor'):
            if mode == 'loss' and self.calls == 1:
                torch.empty(64, 2**20, device='cuda')
            return super().forward(inputs, data_samples, mode)

    train(tmp_path, [RunRecordHook()], Greedy())
    found = json.loads((tmp_path / 'record.json').read_text())
    assert found['memory_kind'] == 'cuda allocated'
    assert 256 <= found['peak_memory_mb'] < 300


@pytest.mark.parametrize('warmup', [-1, 0.5, None])
def test_warmup_wants_a_count(warmup):
    with pytest.raises(ValueError, match=f'warmup must be an integer >= 0, got {warmup}'):
        RunRecordHook(warmup=warmup)


@pytest.mark.filterwarnings('ignore:.*found in sys.modules:RuntimeWarning')
def test_a_second_import_does_not_raise():
    try:
        again = runpy.run_module('nc_plugins.engine.record')['RunRecordHook']
        assert HOOKS.get('RunRecordHook') is again
    finally:
        HOOKS.register_module(module=RunRecordHook, force=True)


def test_the_commit_is_dirty_if_code_differs(tmp_path, monkeypatch):
    package = tmp_path / 'nc_plugins' / 'engine'
    package.mkdir(parents=True)
    files = [tmp_path / 'docs/runs.csv', tmp_path / 'configs/gn.py']
    for file in files:
        file.parent.mkdir()
        file.write_text('1')

    def git(*args):
        who = ['-c', 'user.name=a', '-c', 'user.email=a@b']
        subprocess.run(['git', '-C', str(tmp_path), *who, *args], check=True, capture_output=True)

    git('init')
    git('add', '.')
    git('commit', '-m', 'all')
    monkeypatch.setattr(record, '__file__', str(package / 'record.py'))
    clean = record._commit()
    assert len(clean) == 40
    files[0].write_text('2')
    assert record._commit() == clean
    files[1].write_text('2')
    assert record._commit() == f'{clean}+dirty'
