"""Checkpoints are written in one step, and a resumed training equals an uninterrupted one."""

import copy
import errno
import os
import re
import runpy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from nc_plugins.engine.checkpoints import (
    DurableCheckpointHook,
    checkpoint_to_resume,
    saved_checkpoints,
)
from nc_plugins.engine.record import RunRecordHook
from nc_plugins.engine.runner import locked
from nc_plugins.engine.safe_loading import CheckpointError, load_checkpoint, protect
from nc_plugins.engine.training import choose_start, is_finished
from nc_plugins.engine.usage import UsageError
from nc_plugins.records import read_history, read_record

toy = runpy.run_path(str(Path(__file__).with_name('toy.py')))['runner']


@pytest.fixture(autouse=True)
def _safe():
    protect()


BEST = dict(type='DurableCheckpointHook', interval=1, save_best='toy/score', rule='greater')


class Stop(Exception):
    pass


class StopAt(Hook):
    """Ends the process, as far as a test can: after an iteration, or inside of a validation."""

    priority = 'LOWEST'

    def __init__(self, iteration, validation=False):
        self.iteration, self.validation = iteration, validation

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if not self.validation and runner.iter + 1 == self.iteration:
            raise Stop

    def before_val_epoch(self, runner):
        if self.validation and runner.iter == self.iteration:
            raise Stop


def files(folder):
    return {path.name for path in folder.glob('*.pth*')}


def test_the_last_two_checkpoints_and_the_best_one_stay(tmp_path):
    hook = dict(BEST, max_keep_ckpts=1)
    toy(tmp_path, scores=[1, 3, 2], default_hooks=dict(checkpoint=hook)).train()
    assert files(tmp_path) == {'epoch_2.pth', 'epoch_3.pth', 'best_toy_score_epoch_2.pth'}
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_3.pth')


def test_older_files_are_deleted_after_the_new_one_is_complete(tmp_path, monkeypatch):
    """At each renaming, all files that were there before are still there."""
    present, replace = {}, os.replace

    def watch(source, target):
        present.setdefault(Path(target).name, files(tmp_path))
        replace(source, target)

    monkeypatch.setattr(os, 'replace', watch)
    hook = dict(BEST, max_keep_ckpts=2)
    toy(tmp_path, scores=[1, 2, 3], default_hooks=dict(checkpoint=hook)).train()
    assert {'epoch_1.pth', 'epoch_2.pth'} <= present['epoch_3.pth']
    assert 'best_toy_score_epoch_2.pth' in present['best_toy_score_epoch_3.pth']


def test_a_full_disk_is_a_sentence_and_earlier_checkpoints_stay(tmp_path, monkeypatch):
    replace = os.replace

    def full(source, target):
        if Path(target).name == 'epoch_2.pth':
            raise OSError(errno.ENOSPC, 'No space left on device')
        replace(source, target)

    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(CheckpointError, match=r'epoch_2.pth cannot be written \(No space left'):
        toy(tmp_path).train()
    assert files(tmp_path) == {'epoch_1.pth'}
    load_checkpoint(tmp_path / 'epoch_1.pth')


VARIANTS = {
    'epochs': {},
    'workers': dict(workers=2),
    'accumulation': dict(
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1), accumulative_counts=3)
    ),
    'iterations': dict(
        sampler='InfiniteSampler',
        train_cfg=dict(by_epoch=False, max_iters=12, val_interval=5),
        default_hooks=dict(
            checkpoint=dict(type='DurableCheckpointHook', interval=3, by_epoch=False)
        ),
    ),
    'in the middle of an epoch': dict(
        default_hooks=dict(
            checkpoint=dict(type='DurableCheckpointHook', interval=3, by_epoch=False)
        ),
    ),
}


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('stop', [StopAt(5), StopAt(12), StopAt(12, validation=True)])
def test_a_resumed_training_has_the_bits_of_an_uninterrupted_one(tmp_path, variant, stop):
    settings = copy.deepcopy(VARIANTS[variant])
    hook = settings.setdefault('default_hooks', dict(checkpoint=dict(BEST)))
    hook['checkpoint'].update(save_best='toy/score', rule='greater')
    whole = toy(tmp_path / 'whole', [RunRecordHook()], **settings)
    whole.train()
    with pytest.raises(Stop):
        toy(tmp_path / 'cut', [RunRecordHook(), stop], **settings).train()
    path, _ = checkpoint_to_resume(tmp_path / 'cut')
    settings = dict(settings, resume=True, load_from=str(path))
    resumed = toy(tmp_path / 'cut', [RunRecordHook()], **settings)
    resumed.train()
    for name, expected in whole.model.state_dict().items():
        assert torch.equal(expected, resumed.model.state_dict()[name])
    written = [
        load_checkpoint(checkpoint_to_resume(tmp_path / name)[0]) for name in ('whole', 'cut')
    ]
    assert written[0]['run_record'] == written[1]['run_record']
    assert written[0]['validated'] == written[1]['validated']
    histories = [read_history(tmp_path / name)[1:] for name in ('whole', 'cut')]
    assert histories[0] == histories[1]
    assert read_record(tmp_path / 'cut').metrics == read_record(tmp_path / 'whole').metrics


def test_a_finished_training_is_not_started_again(tmp_path):
    toy(tmp_path, [RunRecordHook()]).train()
    cfg = Config(dict(work_dir=str(tmp_path), train_cfg=dict(by_epoch=True, max_epochs=3)))
    assert is_finished(cfg)
    cfg.train_cfg.max_epochs = 4
    assert not is_finished(cfg)


def test_a_resume_of_the_last_checkpoint_keeps_the_metrics(tmp_path):
    toy(tmp_path, [RunRecordHook()]).train()
    record, history = read_record(tmp_path), read_history(tmp_path)
    last = str(tmp_path / 'epoch_3.pth')
    toy(tmp_path, [RunRecordHook()], resume=True, load_from=last).train()
    assert read_record(tmp_path).metrics == record.metrics == {'toy/score': 3.0}
    assert read_history(tmp_path)[1:] == history[1:]


@pytest.mark.parametrize('name', ['best_toy_score_epoch_2.pth', 'record.json'])
def test_a_kill_after_the_last_checkpoint_loses_nothing(tmp_path, monkeypatch, name):
    """The kill comes before the previous best checkpoint is deleted, or the record written."""

    def die(*_):
        raise Stop

    def training(**more):
        hooks = dict(checkpoint=dict(BEST, max_keep_ckpts=2))
        return toy(tmp_path, [RunRecordHook()], [1, 2, 3], default_hooks=hooks, **more)

    killed = training()
    if name == 'record.json':
        monkeypatch.setattr('nc_plugins.records.write_record', die)
    else:
        delete = DurableCheckpointHook._delete
        monkeypatch.setattr(
            DurableCheckpointHook,
            '_delete',
            lambda hook, path: die() if path.endswith(name) else delete(hook, path),
        )
    with pytest.raises(Stop):
        killed.train()
    monkeypatch.undo()
    training(resume=True, load_from=str(tmp_path / 'epoch_3.pth')).train()
    assert files(tmp_path) == {'epoch_2.pth', 'epoch_3.pth', 'best_toy_score_epoch_3.pth'}
    record = read_record(tmp_path)
    assert record.finished and record.metrics_max == {'toy/score': 3.0}
    assert len(read_history(tmp_path)) == 7


def test_a_checkpoint_left_over_by_a_kill_is_deleted_later(tmp_path, monkeypatch):
    def die(*_):
        raise Stop

    monkeypatch.setattr('mmengine.fileio.LocalBackend.remove', die)
    with pytest.raises(Stop):
        toy(tmp_path).train()
    assert files(tmp_path) == {'epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth'}
    monkeypatch.undo()
    toy(tmp_path, resume=True, load_from=str(tmp_path / 'epoch_3.pth')).train()
    assert files(tmp_path) == {'epoch_2.pth', 'epoch_3.pth'}


def test_resume_takes_the_newest_file_that_loads_and_names_the_others(tmp_path):
    for epoch in (2, 9, 10):
        torch.save({'optimizer': {}, 'epoch': epoch}, tmp_path / f'epoch_{epoch}.pth')
    torch.save({}, tmp_path / 'best_score_epoch_11.pth')
    assert checkpoint_to_resume(tmp_path)[0].name == 'epoch_10.pth'
    content = (tmp_path / 'epoch_10.pth').read_bytes()
    (tmp_path / 'epoch_10.pth').write_bytes(content[: len(content) // 2])
    path, broken = checkpoint_to_resume(tmp_path)
    assert path.name == 'epoch_9.pth'
    assert len(broken) == 1 and re.search('epoch_10.pth cannot be read', broken[0])
    for epoch in (2, 9):
        (tmp_path / f'epoch_{epoch}.pth').write_bytes(b'')
    with pytest.raises(CheckpointError, match=r'no checkpoint .* can be resumed .*epoch_9.pth'):
        checkpoint_to_resume(tmp_path)
    assert checkpoint_to_resume(tmp_path / 'other') == (None, [])


def test_checkpoints_with_a_name_of_the_users(tmp_path):
    (tmp_path / 'step-7.pt').write_bytes(b'')
    (tmp_path / 'epoch_1.pth').write_bytes(b'')
    assert [p.name for p in saved_checkpoints(tmp_path, 'step-{}.pt')] == ['step-7.pt']


def config(folder):
    return Config(dict(work_dir=str(folder), default_hooks=dict(checkpoint=dict(interval=1))))


def test_a_training_does_not_overwrite_the_checkpoints_of_another(tmp_path):
    for epoch in (1, 2):
        torch.save({'optimizer': {}}, tmp_path / f'epoch_{epoch}.pth')
    with pytest.raises(UsageError, match=r'epoch_2.pth\): add --resume'):
        choose_start(config(tmp_path), None)
    with pytest.raises(UsageError, match=r'later checkpoints than .*epoch_1.pth \(epoch_2.pth'):
        choose_start(config(tmp_path), str(tmp_path / 'epoch_1.pth'))
    cfg = config(tmp_path)
    assert choose_start(cfg, 'auto') == []
    assert cfg.resume and cfg.load_from == str(tmp_path / 'epoch_2.pth')
    cfg = config(tmp_path / 'empty')
    assert choose_start(cfg, 'auto') == []
    assert not cfg.resume and cfg.load_from is None


def test_one_training_at_a_time_in_a_folder(tmp_path):
    taken = pytest.raises(UsageError, match='another training is running in')
    with locked(tmp_path), taken, locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UsageError, match=r'is not writable \('), locked(tmp_path / 'file' / 'run'):
        pass
