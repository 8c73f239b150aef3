"""What a training leaves behind for tables and curves: history.jsonl and record.json."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop

from nc_plugins import __version__


# force: a second import (reload, two names for one file) must register again, not raise.
@HOOKS.register_module(force=True)
class RunRecordHook(Hook):
    """Write ``history.jsonl`` while a training runs and ``record.json`` once it has finished.

    ``history.jsonl`` (one JSON object a line) holds what the curves need, unsmoothed: the mean of
    every training loss over the epoch (over the iterations between two validations in iteration
    based training) and the metrics of each validation. mmengine's own scalars.json cannot serve:
    there the training loss is a mean of the last few iterations, and every validation metric with
    "loss" in its name a mean over the last few validations (``window_size`` of the log processor).
    The hook switches off the second, so that mmengine's log shows the values themselves.

    ``record.json`` exists only for a finished training and is written in one step. Units:
    ``images_per_second`` is training images over training time summed over ranks, data loading
    included, validation, checkpoints written between epochs and the first ``warmup`` iterations
    excluded; null if the training was no longer than the warm-up. ``peak_memory_mb`` is in MiB:
    CUDA memory held by tensors during training (``memory_kind`` 'cuda allocated'), or on the CPU
    the largest resident size of the process, Python and libraries included ('process peak RSS').
    ``train_seconds`` counts the training iterations, ``total_seconds`` all from the start of the
    training to its end. ``load`` is the system's load average over the last minute, which tells
    beside ``cores`` whether the speed was disturbed. After a resume the history goes on, but speed,
    memory and seconds are those of the last process alone.

    Args:
        warmup (int): training iterations that do not count for ``images_per_second``.

    The hook works on rank 0 only. It copies ``run_fingerprint`` from the config, if there, into the
    record: tools/compare.py recognises its runs by it.
    """

    # Before LoggerHook (BELOW_NORMAL), which resets CUDA's peak memory each time that it logs.
    priority = 'NORMAL'

    def __init__(self, warmup: int = 10) -> None:
        if not isinstance(warmup, int) or warmup < 0:
            raise ValueError(f'warmup wants an integer >= 0, got {warmup!r}.')
        self.warmup = warmup
        self._training = False

    def before_train(self, runner) -> None:
        if runner.rank != 0:
            return
        self._training = True
        self._start = time.perf_counter()
        self._utc_start = _utc()
        self._by_epoch = not isinstance(runner.train_loop, IterBasedTrainLoop)
        self._device = next(runner.model.parameters()).device
        self._sums, self._count, self._seen = {}, 0, 0
        self._images, self._timed_seconds, self._train_seconds = 0, 0.0, 0.0
        self._peak = 0
        self._last, self._min, self._max = {}, {}, {}
        _unsmooth_validation(runner)
        folder = Path(runner.work_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self._record, self._history = folder / 'record.json', folder / 'history.jsonl'
        self._begun = False
        self._tick = time.perf_counter()

    def before_train_epoch(self, runner) -> None:
        if self._training:
            self._tick = time.perf_counter()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if not self._training:
            return
        if not self._begun:
            # Not earlier: a run that fails in its first iteration must not cost the last one's.
            self._begun = True
            self._record.unlink(missing_ok=True)  # it says "finished", which stops being true
            self._begin_history(runner)
        self._seen += 1
        if self._seen == self.warmup and self._device.type == 'cuda':
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self._train_seconds += now - self._tick
        if self._seen > self.warmup:
            self._timed_seconds += now - self._tick
            self._images += _batch_size(data_batch, runner) * runner.world_size
        self._tick = now
        for key, value in (outputs if isinstance(outputs, Mapping) else {}).items():
            if 'loss' in key:
                value = value.detach() if isinstance(value, torch.Tensor) else value
                self._sums[key] = self._sums.get(key, 0.0) + float(value)
        self._count += 1
        if self._device.type == 'cuda':
            self._peak = max(self._peak, torch.cuda.max_memory_allocated(self._device))

    def after_train_epoch(self, runner) -> None:
        if not self._training:
            return
        if self._device.type == 'cuda':
            # Kernels still in flight belong to the iterations just counted.
            torch.cuda.synchronize(self._device)
            waited = time.perf_counter() - self._tick
            self._train_seconds += waited
            self._timed_seconds += waited if self._images else 0.0
        self._write_training_loss(runner, epoch=runner.epoch + 1)

    def before_val_epoch(self, runner) -> None:
        # Epoch based training has nothing left to write here: its epoch has just ended.
        if self._training:
            self._write_training_loss(runner, epoch=runner.epoch)

    def after_val_epoch(self, runner, metrics=None) -> None:
        if not self._training:
            return
        metrics = _scalars(metrics)
        self._append(
            {
                'event': 'val',
                'epoch': runner.epoch if self._by_epoch else None,
                'iter': runner.iter,
                'metrics': metrics,
            }
        )
        self._note_validation(metrics)

    def after_val(self, runner) -> None:
        if self._training:
            self._tick = time.perf_counter()

    def after_train(self, runner) -> None:
        if not self._training:
            return
        self._training = False
        if self._device.type == 'cuda':
            memory, kind = self._peak / 2**20, 'cuda allocated'
        else:
            rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            # Linux counts KiB, macOS bytes.
            memory, kind = rss / (2**20 if sys.platform == 'darwin' else 2**10), 'process peak RSS'
        speed = self._images / self._timed_seconds if self._timed_seconds else None
        record = {
            'finished': True,
            'config': getattr(runner.cfg, 'filename', None),
            'fingerprint': runner.cfg.get('run_fingerprint'),
            'seed': runner.seed,
            'max_epochs': runner.max_epochs if self._by_epoch else None,
            'max_iters': runner.max_iters,
            'metrics': self._last,
            'metrics_min': self._min,
            'metrics_max': self._max,
            'images_per_second': speed,
            'peak_memory_mb': memory,
            'memory_kind': kind,
            'train_seconds': self._train_seconds,
            'total_seconds': time.perf_counter() - self._start,
            'device': _device_name(self._device),
            'world_size': runner.world_size,
            'threads': torch.get_num_threads(),
            'cores': os.cpu_count(),
            'load': os.getloadavg()[0],
            'torch': torch.__version__,
            'nc_plugins': __version__,
            'commit': _commit(),
            'utc_start': self._utc_start,
            'utc_end': _utc(),
            'census': runner.message_hub.get_info('nc_census'),
        }
        _write_atomically(self._record, json.dumps(record, indent=1, default=str) + '\n')

    def _begin_history(self, runner) -> None:
        kept = []
        if runner.iter > 0 and self._history.exists():
            for line in self._history.read_text().splitlines():
                try:
                    event = json.loads(line)
                except json.JSONDecodeError:
                    continue
                if event.get('event') != 'start' and event.get('iter', math.inf) <= runner.iter:
                    kept.append(event)
        start = {
            'event': 'start',
            'utc': self._utc_start,
            'by_epoch': self._by_epoch,
            'max_epochs': runner.max_epochs if self._by_epoch else None,
            'max_iters': runner.max_iters,
        }
        text = ''.join(json.dumps(event) + '\n' for event in [start, *kept])
        _write_atomically(self._history, text)
        for event in kept:
            if event['event'] == 'val':
                self._note_validation(event['metrics'])

    def _note_validation(self, metrics: dict) -> None:
        self._last = metrics
        for key, value in metrics.items():
            if not math.isnan(value):
                self._min[key] = min(value, self._min.get(key, value))
                self._max[key] = max(value, self._max.get(key, value))

    def _write_training_loss(self, runner, epoch: int) -> None:
        if not self._count:
            return
        losses = {key: total / self._count for key, total in self._sums.items()}
        self._append(
            {
                'event': 'train',
                'epoch': epoch if self._by_epoch else None,
                'iter': runner.iter,
                'losses': losses,
            }
        )
        self._sums, self._count = {}, 0

    def _append(self, event: dict) -> None:
        with self._history.open('a') as file:
            file.write(json.dumps(event) + '\n')


def _unsmooth_validation(runner) -> None:
    """Keep mmengine's ten-value running mean to training scalars.

    Its LogProcessor averages every key that holds "loss", so "val/loss" too, over ``window_size``
    validations. Training keys have no slash ('loss', 'decode.loss_ce') unless the log has hierarchy
    ('train/loss'), evaluators' keys do. Only the default pattern is narrowed: a user's stays.
    """
    processor = runner.log_processor
    names = '(loss|time|data_time|grad_norm)'
    if getattr(getattr(processor, 'mean_pattern', None), 'pattern', None) == f'.*{names}.*':
        processor.mean_pattern = re.compile(f'^(train/)?[^/]*{names}[^/]*$')


def _batch_size(data_batch, runner) -> int:
    samples = data_batch.get('data_samples') if isinstance(data_batch, Mapping) else None
    if isinstance(samples, Mapping):  # of unpaired images, by domain: a pair counts once
        samples = next(iter(samples.values()), None)
    if isinstance(samples, (list, tuple)):
        return len(samples)
    return runner.train_dataloader.batch_size or 0


def _scalars(metrics) -> dict[str, float]:
    """The metrics that are one number; tables and per-class arrays stay out."""
    numbers = {}
    for key, value in (metrics or {}).items():
        if isinstance(value, str):
            continue
        try:
            numbers[key] = float(value)
        except (TypeError, ValueError, RuntimeError):
            continue
    return numbers


def _device_name(device: torch.device) -> str:
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        model = next(line.split(':', 1)[1].strip() for line in lines if 'model name' in line)
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f'CPU {model}'


def _commit() -> str | None:
    """Commit of the checkout this package lies in, '+dirty' if tracked files differ, else None."""
    package = Path(__file__).resolve().parents[1]

    def git(*args: str) -> str:
        command = ['git', '-C', str(package), *args]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
        return done.stdout.strip()

    try:
        # A package installed inside somebody else's repository is not that repository's commit.
        if Path(git('rev-parse', '--show-toplevel')).resolve() != package.parent:
            return None
        commit = git('rev-parse', 'HEAD')
        return commit + ('+dirty' if git('status', '--porcelain', '-uno') else '')
    except (OSError, subprocess.SubprocessError):
        return None


def _write_atomically(path: Path, text: str) -> None:
    partial = path.with_name(path.name + '.partial')
    partial.write_text(text)
    os.replace(partial, path)


def _utc() -> str:
    return datetime.now(timezone.utc).isoformat(timespec='seconds')
