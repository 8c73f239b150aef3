"""A hook that writes the history and the record of a training into its run folder."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

import psutil
import torch
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop

from nc_plugins import __version__

from .. import records

# Keys of the hook's state in a checkpoint. The times are apart, because they differ between two
# trainings that are otherwise equal.
_STATE, _TIMES = 'run_record', 'run_times'


# force: a second import (reload, two names for one file) must register again, not raise.
@HOOKS.register_module(force=True)
class RunRecordHook(Hook):
    """Write ``history.jsonl`` during a training and ``record.json`` when it has finished.

    ``nc_plugins.records`` describes both files. The history holds exact values: the mean of every
    training loss over the epoch (without epochs: over the iterations between two validations) and
    the metrics of each validation. mmengine's ``scalars.json`` is not exact. It averages the
    training loss over the last few iterations, and every validation metric with "loss" in its name
    over the last few validations (``window_size`` of the log processor). The hook turns the
    averaging of validations off, so mmengine's log shows exact metrics too.

    Checkpoints contain the history, so a resumed training continues it exactly. A training that
    has nothing left to do after a resume leaves the files as they are. With several processes,
    losses are means over all of them, speed counts the images of all, and memory is that of rank 0,
    which writes the files.

    Args:
        warmup (int): number of first training iterations that do not count for
            ``images_per_second``. A training that is not longer has no ``images_per_second``.
    """

    # LoggerHook (BELOW_NORMAL) resets CUDA's peak memory when it logs, so this hook runs before it.
    priority = 'NORMAL'

    def __init__(self, warmup: int = 10) -> None:
        if not isinstance(warmup, int) or warmup < 0:
            raise ValueError(f'warmup must be an integer >= 0, got {warmup!r}.')
        self.warmup = warmup
        self._training = False
        self._loaded: dict = {}

    def before_train(self, runner) -> None:
        self._training = True
        self._start = time.perf_counter()
        self._by_epoch = not isinstance(runner.train_loop, IterBasedTrainLoop)
        self._max_epochs = runner.max_epochs if self._by_epoch else None
        self._device = next(runner.model.parameters()).device
        loaded, self._loaded = self._loaded if runner.iter > 0 else {}, {}
        resumed, times = loaded.get(_STATE, {}), loaded.get(_TIMES, {})
        self._events = [records.event_from_dict(event) for event in resumed.get('events', ())]
        self._sums, self._count = dict(resumed.get('sums', {})), resumed.get('count', 0)
        self._utc_start = times.get('utc_start') or _utc()
        self._train_seconds = times.get('train_seconds', 0.0)
        self._earlier_seconds = times.get('total_seconds', 0.0)
        self._seen = 0
        self._images, self._timed_seconds = 0, 0.0
        self._peak = 0
        _unsmooth_validation(runner)
        self._folder = Path(runner.work_dir)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._begun = False
        self._tick = time.perf_counter()

    def before_train_epoch(self, runner) -> None:
        if self._training:
            self._tick = time.perf_counter()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if not self._training:
            return
        self._begin(runner)
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
            # Wait for the kernels of the iterations that were just counted.
            torch.cuda.synchronize(self._device)
            waited = time.perf_counter() - self._tick
            self._train_seconds += waited
            self._timed_seconds += waited if self._images else 0.0
        self._write_training_loss(runner, epoch=runner.epoch + 1)

    def before_val_epoch(self, runner) -> None:
        # Writes nothing if the training counts epochs, because after_train_epoch has written.
        if self._training:
            self._write_training_loss(runner, epoch=runner.epoch)

    def after_val_epoch(self, runner, metrics=None) -> None:
        if not self._training or runner.rank != 0:
            return
        self._begin(runner)  # after a resume a validation can come before the first iteration
        epoch = runner.epoch if self._by_epoch else None
        classes = (getattr(runner.val_evaluator, 'dataset_meta', None) or {}).get('classes') or ()
        numbers, per_class = _split(metrics or {}, classes)
        self._append(records.Validation(epoch, runner.iter, numbers, per_class))

    def after_val(self, runner) -> None:
        if self._training:
            self._tick = time.perf_counter()

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        if self._training:
            events = [records.event_to_dict(event) for event in self._events]
            checkpoint[_STATE] = dict(events=events, sums=self._sums, count=self._count)
            checkpoint[_TIMES] = dict(
                utc_start=self._utc_start,
                train_seconds=self._train_seconds,
                total_seconds=self._total_seconds(),
            )

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        self._loaded = {key: checkpoint.get(key, {}) for key in (_STATE, _TIMES)}

    def after_train(self, runner) -> None:
        if not self._training:
            return
        self._training = False
        if runner.rank != 0:
            return
        if not self._begun and (self._folder / records.RECORD).exists():
            runner.logger.info('The training was finished already; its record stays as it is')
            return
        self._begin(runner)
        if self._device.type == 'cuda':
            memory, kind = self._peak, 'cuda allocated'
        else:
            memory, kind = _peak_resident_memory(), 'process peak RSS'
        validations = [e.metrics for e in self._events if isinstance(e, records.Validation)]
        lowest, highest = _extremes(validations)
        record = records.Record(
            # False if the validation of the last epoch is missing.
            finished=runner.val_loop is None or bool(validations),
            config=getattr(runner.cfg, 'filename', None),
            fingerprint=runner.cfg.get('run_fingerprint'),
            seed=runner.seed,
            max_epochs=self._max_epochs,
            max_iters=runner.max_iters,
            metrics=validations[-1] if validations else {},
            metrics_min=lowest,
            metrics_max=highest,
            images_per_second=self._images / self._timed_seconds if self._timed_seconds else None,
            peak_memory_mb=memory / 2**20,
            memory_kind=kind,
            train_seconds=self._train_seconds,
            total_seconds=self._total_seconds(),
            device=_device_name(self._device),
            world_size=runner.world_size,
            threads=torch.get_num_threads(),
            cores=os.cpu_count(),
            load=psutil.getloadavg()[0],
            torch=torch.__version__,
            nc_plugins=__version__,
            commit=_commit(),
            utc_start=self._utc_start,
            utc_end=_utc(),
            census=runner.message_hub.get_info('nc_census'),
        )
        records.write_record(self._folder, record)

    def _begin(self, runner) -> None:
        """Delete the old record and start the history, once.

        Not in before_train: a training that fails in its first iteration, or has nothing to do,
        must not delete the record of the training before.
        """
        if self._begun or runner.rank != 0:
            return
        self._begun = True
        (self._folder / records.RECORD).unlink(missing_ok=True)
        start = records.Start(self._by_epoch, self._max_epochs, runner.max_iters, self._utc_start)
        records.write_history(self._folder, [start, *self._events])

    def _total_seconds(self) -> float:
        return self._earlier_seconds + time.perf_counter() - self._start

    def _append(self, event: records.Event) -> None:
        self._events.append(event)
        records.append_event(self._folder, event)

    def _write_training_loss(self, runner, epoch: int) -> None:
        if not self._count:
            return
        # Objects, because the processes need not have the same losses.
        ranks = all_gather_object((self._sums, self._count))
        self._sums, self._count = {}, 0
        if runner.rank == 0:
            losses = _mean_losses(ranks)
            event = records.TrainingLoss(epoch if self._by_epoch else None, runner.iter, losses)
            self._append(event)


def _mean_losses(ranks: Iterable[tuple[dict[str, float], int]]) -> dict[str, float]:
    """Mean of each loss over the iterations of all processes, from their (sums, iterations)."""
    sums, iterations = Counter(), 0
    for losses, count in ranks:
        sums.update(losses)
        iterations += count
    return {key: total / iterations for key, total in sums.items()}


def _extremes(validations: list[dict]) -> tuple[dict, dict]:
    """The smallest and the largest value of each metric, without NaN."""
    values: dict[str, list[float]] = {}
    for metrics in validations:
        for key, value in metrics.items():
            if not math.isnan(value):
                values.setdefault(key, []).append(value)
    return {k: min(v) for k, v in values.items()}, {k: max(v) for k, v in values.items()}


def _unsmooth_validation(runner) -> None:
    """Restrict mmengine's running mean over ``window_size`` values to training scalars.

    mmengine's LogProcessor averages every key that contains "loss", including "val/loss". Training
    keys have no slash ('loss', 'decode.loss_ce') except for the prefix of a hierarchical log
    ('train/loss'). Metric keys have a slash. A pattern that the user has set does not change.
    """
    processor = runner.log_processor
    names = '(loss|time|data_time|grad_norm)'
    if getattr(getattr(processor, 'mean_pattern', None), 'pattern', None) == f'.*{names}.*':
        processor.mean_pattern = re.compile(f'^(train/)?[^/]*{names}[^/]*$')


def _batch_size(data_batch, runner) -> int:
    samples = data_batch.get('data_samples') if isinstance(data_batch, Mapping) else None
    if isinstance(samples, Mapping):  # unpaired images, by domain: a pair counts as one image
        samples = next(iter(samples.values()), None)
    if isinstance(samples, (list, tuple)):
        return len(samples)
    return runner.train_dataloader.batch_size or 0


def _split(metrics: Mapping, classes: Sequence[str]) -> tuple[dict, dict]:
    """{metric: number} and {metric: {class: number}} from the metrics of a validation.

    A metric by class is a sequence with a number for each class (mmpretrain, ClassIoU), or the keys
    'coco/<class>_precision' (mmdet's CocoMetric with classwise=True). Tables are left out.
    """
    numbers, per_class = {}, {}
    precisions = {f'{name}_precision': name for name in classes}
    for key, value in metrics.items():
        prefix, slash, name = key.partition('/')
        with contextlib.suppress(TypeError, ValueError, RuntimeError):  # no numbers
            if isinstance(value, (list, tuple)) and classes and len(value) == len(classes):
                values = dict(zip(classes, map(float, value), strict=True))
                per_class[key.removesuffix('_classwise')] = values
            elif slash and name in precisions:
                per_class.setdefault(f'{prefix}/precision', {})[precisions[name]] = float(value)
            elif not isinstance(value, str):
                numbers[key] = float(value)
    return numbers, per_class


def _peak_resident_memory() -> int:
    """Largest resident size of this process so far, in bytes."""
    if psutil.WINDOWS:
        return psutil.Process().memory_info().peak_wset
    import resource  # psutil has no peak on POSIX, and Windows has no resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if psutil.MACOS else peak * 2**10  # bytes on macOS, KiB elsewhere


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
    """Git commit of this package, with '+dirty' after changes; None without git.

    Changes in docs do not count, because a training does not read them, and new files do not.
    """
    package = Path(__file__).resolve().parents[1]

    def git(*args: str) -> str:
        command = ['git', '-C', str(package), *args]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
        return done.stdout.strip()

    try:
        # The package may be installed inside the repository of another project.
        if Path(git('rev-parse', '--show-toplevel')).resolve() != package.parent:
            return None
        commit = git('rev-parse', 'HEAD')
        code = ('--', ':/', ':(top,exclude)docs')
        return commit + ('+dirty' if git('status', '--porcelain', '-uno', *code) else '')
    except (OSError, subprocess.SubprocessError):
        return None


def _utc() -> str:
    return datetime.now(timezone.utc).isoformat(timespec='seconds')
