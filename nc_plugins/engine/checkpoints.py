"""Checkpoints that survive a kill at any moment, and the choice of the one to resume from."""

from __future__ import annotations

import bisect
import re
from pathlib import Path

import torch
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop

from ..records import write_atomically
from .safe_loading import CheckpointError, load_checkpoint

# A file client of mmengine, for its argument ``backend_args``.
ATOMIC = 'nc_atomic'
# Key of the message hub: best checkpoints that are deleted after a better one is complete.
_EARLIER_BEST = 'earlier_best_ckpts'


@register_backend(ATOMIC, force=True)
class AtomicBackend(LocalBackend):
    """Local files that are replaced in one step: readers see the old content or the new one."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_atomically(path, obj)
        except OSError as e:
            raise CheckpointError(
                f'{path} cannot be written ({e.strerror}); earlier checkpoints are intact: make '
                'room or allow writing, then continue with --resume'
            ) from e


@HOOKS.register_module(force=True)
class DurableCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook, safe against a kill at any moment.

    A checkpoint is written under a temporary name, flushed to the disk and renamed. Only then the
    file ``last_checkpoint`` changes and older checkpoints are deleted. If a training was killed
    between a checkpoint and the validation that follows it, the resumed training starts with this
    validation. A checkpoint between two optimiser steps of gradient accumulation has the gradients.

    Args:
        max_keep_ckpts: number of checkpoints to keep, at least 2 (1 counts as 2). -1 keeps all.
        interval, kwargs: arguments of mmengine's CheckpointHook.
    """

    def __init__(self, interval: int = -1, max_keep_ckpts: int = -1, **kwargs) -> None:
        keep = 2 if max_keep_ckpts == 1 else max_keep_ckpts
        super().__init__(interval, max_keep_ckpts=keep, **kwargs)
        self._loaded: dict = {}
        self._validated = -1  # iteration of the last validation

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        # Not the whole checkpoint, which would stay in memory during a test.
        self._loaded = {key: checkpoint.get(key) for key in ('validated', 'gradients')}

    def before_train(self, runner) -> None:
        remote = '://' in str(self.out_dir or '')
        if self.backend_args is None and self.file_client_args is None and not remote:
            self.backend_args = dict(backend=ATOMIC)
        # After a resume this deletes the checkpoint that a killed training had left over.
        super().before_train(runner)
        current = self._best_paths().values()
        for path in runner.message_hub.runtime_info.get(_EARLIER_BEST, ()):
            if path not in current:
                self._delete(path)
        loaded, self._loaded = self._loaded, {}
        if runner.iter == 0:
            return
        self._validated = loaded.get('validated')
        # After a validation mmengine writes this checkpoint again if the model is the best one.
        self.last_ckpt = runner.message_hub.runtime_info.get('last_ckpt')
        _restore_gradients(runner.model, loaded.get('gradients') or {})
        _leave_out_trained_samples(runner)
        if _validation_is_due(runner) and self._validated != runner.iter:
            runner.logger.info('The training stopped before a validation, which runs now')
            runner.val_loop.run()

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        checkpoint['validated'] = self._validated
        if 'optimizer' in checkpoint and (gradients := _open_gradients(runner.model)):
            checkpoint['gradients'] = gradients

    def after_val_epoch(self, runner, metrics) -> None:
        self._validated = runner.iter
        # mmengine deletes the previous best checkpoint before it writes the new one, unless it
        # does not know the previous one.
        previous = self._best_paths()
        runner.message_hub.update_info(_EARLIER_BEST, [p for p in previous.values() if p])
        self._set_best_paths(dict.fromkeys(previous))
        super().after_val_epoch(runner, metrics)
        current = self._best_paths()
        self._set_best_paths({key: path or previous.get(key) for key, path in current.items()})
        for key, path in previous.items():
            if path and current.get(key) and path != current[key]:
                self._delete(path)

    def _best_paths(self) -> dict[str, str | None]:
        if hasattr(self, 'best_ckpt_path_dict'):
            return dict(self.best_ckpt_path_dict)
        return {'': self.best_ckpt_path} if hasattr(self, 'best_ckpt_path') else {}

    def _set_best_paths(self, paths: dict[str, str | None]) -> None:
        if hasattr(self, 'best_ckpt_path_dict'):
            self.best_ckpt_path_dict.update(paths)
        elif paths:
            self.best_ckpt_path = paths['']

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        limit, outdated = self.max_keep_ckpts, []
        if limit > 0:
            steps = [kept for kept in self.keep_ckpt_ids if kept != step] + [step]
            # The checkpoint lists what is deleted after it, for the case of a kill in between.
            runner.message_hub.update_info('keep_ckpt_ids', steps)
            outdated = steps[:-limit]
            self.keep_ckpt_ids.clear()
            self.keep_ckpt_ids.extend(steps[-limit:])
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            write_atomically(Path(runner.work_dir, 'last_checkpoint'), self.last_ckpt.encode())
        for old in outdated:
            self._delete(self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old)))

    def _delete(self, path: str) -> None:
        if is_main_process() and self.file_backend.isfile(path):
            self.file_backend.remove(path)


def saved_checkpoints(folder: Path, template: str | None = None) -> list[Path]:
    """The checkpoints of a training in ``folder``, the latest first, without the best ones.

    Args:
        folder: where CheckpointHook writes.
        template: ``filename_tmpl`` of the hook; by default epoch_{}.pth or iter_{}.pth.
    """
    names = (
        re.escape(template).replace(r'\{\}', r'(\d+)') if template else r'(?:epoch|iter)_(\d+)\.pth'
    )
    steps = {
        path: int(match[1])
        for path in folder.glob('*')
        if (match := re.fullmatch(names, path.name)) and path.is_file()
    }
    return sorted(steps, key=steps.get, reverse=True)


def checkpoint_to_resume(
    folder: Path, template: str | None = None
) -> tuple[Path | None, list[str]]:
    """The latest checkpoint in ``folder`` that loads, and sentences about later, broken ones.

    The path is None if the folder has no checkpoints. Arguments as in :func:`saved_checkpoints`.

    Raises: CheckpointError if there are checkpoints, but none of them can be resumed.
    """
    found, broken = saved_checkpoints(folder, template), []
    for path in found:
        try:
            if 'optimizer' not in load_checkpoint(path):
                raise CheckpointError(f'checkpoint {path} has weights only')
        except CheckpointError as e:
            broken.append(str(e))
        else:
            return path, broken
    broken += [f'{p} has weights only' for p in sorted(folder.glob('*.pth')) if p not in found]
    if broken:
        raise CheckpointError(
            f'no checkpoint in {folder} can be resumed ({"; ".join(broken)}): to start over, '
            'choose another --work-dir or move the checkpoints away'
        )
    return None, []


def _validation_is_due(runner) -> bool:
    """True if an uninterrupted training validates at this point, between two iterations."""
    loop = runner.train_loop
    if runner.val_loop is None:
        return False
    by_iter = isinstance(loop, IterBasedTrainLoop)
    step, last = (loop.iter, loop.max_iters) if by_iter else (loop.epoch, loop.max_epochs)
    if not by_iter and loop.iter != loop.epoch * len(loop.dataloader):
        return False  # in the middle of an epoch
    interval = loop.dynamic_intervals[bisect.bisect(loop.dynamic_milestones, step + 1) - 1]
    return step >= loop.val_begin and (step % interval == 0 or step == last)


def _leave_out_trained_samples(runner) -> None:
    """Continue an epoch at the batch after the checkpoint. mmengine starts the epoch again."""
    loop = runner.train_loop
    if isinstance(loop, IterBasedTrainLoop):
        return  # mmengine does it
    batches = loop.iter - loop.epoch * len(loop.dataloader)
    if batches == 0:
        return
    sampler, size = loop.dataloader.sampler, loop.dataloader.batch_size
    if size is None or not hasattr(sampler, 'leave_out'):
        raise CheckpointError(
            f'the checkpoint is from iteration {batches} of an epoch, and the batch sampler of '
            'train_dataloader cannot start there: resume from a checkpoint at the end of an epoch'
        )
    sampler.leave_out(batches * size)


def _open_gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Gradients that wait for more batches before the optimiser's step, which sets them to None."""
    named = model.named_parameters()
    return {name: p.grad.detach().cpu() for name, p in named if p.grad is not None}


def _restore_gradients(model: torch.nn.Module, gradients: dict[str, torch.Tensor]) -> None:
    for name, parameter in model.named_parameters():
        if name in gradients:
            parameter.grad = gradients[name].to(parameter)
