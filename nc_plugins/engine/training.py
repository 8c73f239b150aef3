"""Applies the flags of tools/train.py to a config."""

from __future__ import annotations

from pathlib import Path

import torch

from ..records import read_record
from .checkpoints import checkpoint_to_resume, saved_checkpoints
from .safe_loading import CheckpointError
from .schema import check_train_loop
from .usage import UsageError, type_name

HOOKS = ('NCCensusHook', 'RunRecordHook', 'DataCheckHook')


def check_trainable(cfg) -> None:
    """Raise UsageError if ``cfg`` has no training part, or a loop that cannot be built."""
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper'):
        if not cfg.get(key):
            raise UsageError(f'{cfg.filename} has no {key}, so there is nothing to train')
    check_train_loop(cfg)


def apply_training_flags(cfg, *, amp: bool, auto_scale_lr: bool, calibrate: int | None) -> None:
    """Apply --amp, --auto-scale-lr and --calibrate to ``cfg``, and add what makes a training safe.

    mmengine's Runner becomes the ReliableRunner, its CheckpointHook the DurableCheckpointHook, and
    the ``HOOKS`` are added.

    Raises: UsageError if ``cfg`` or this machine does not support a flag.
    """
    if amp:
        _use_amp(cfg)
    if auto_scale_lr:
        if not (cfg.get('auto_scale_lr') or {}).get('base_batch_size'):
            raise UsageError(
                '--auto-scale-lr needs auto_scale_lr.base_batch_size, the batch size for which lr '
                f'was chosen, and {cfg.filename} does not have it'
            )
        cfg.auto_scale_lr.enable = True
    cfg.setdefault('runner_type', 'ReliableRunner')
    hooks = cfg.setdefault('default_hooks', {})
    checkpoint = hooks.setdefault('checkpoint', dict(type='DurableCheckpointHook', interval=1))
    if type_name(checkpoint) == 'CheckpointHook':
        checkpoint['type'] = 'DurableCheckpointHook'
    hooks = list(cfg.get('custom_hooks') or [])
    listed = {type_name(hook) for hook in hooks}
    cfg.custom_hooks = hooks + [dict(type=name) for name in HOOKS if name not in listed]
    if calibrate is not None:
        _check_calibrate(cfg, calibrate)
        cfg.custom_hooks.append(dict(type='CalibrateHook', images=calibrate))


def is_finished(cfg) -> bool:
    """True if the work folder has the record of a training that reached the end of ``cfg``."""
    record, plan = read_record(Path(cfg.work_dir)), cfg.train_cfg
    if record is None:
        return False
    by_epoch = record.max_epochs is not None
    end, wanted = ('max_epochs', record.max_epochs) if by_epoch else ('max_iters', record.max_iters)
    return plan.get(end) == wanted


def choose_start(cfg, resume: str | None) -> list[str]:
    """Apply --resume: set ``load_from`` and ``resume`` so that no checkpoint is lost.

    Args:
        cfg: a config after ``apply_training_flags``.
        resume: a checkpoint, 'auto' for the latest in the work folder, or None to start anew.

    Returns: sentences about broken checkpoints that are passed over.
    Raises: UsageError if the training would overwrite a checkpoint, or none can be resumed.
    """
    if resume is None and cfg.get('resume'):  # set in the config
        resume = cfg.get('load_from') or 'auto'
    hook = cfg.default_hooks.get('checkpoint') or {}
    folder, template = Path(cfg.work_dir), hook.get('filename_tmpl')
    if hook.get('out_dir'):
        if '://' in hook['out_dir']:
            cfg.resume, cfg.load_from = resume is not None, None if resume == 'auto' else resume
            return []  # mmengine finds the latest checkpoint behind a file client
        folder = Path(hook['out_dir'], folder.name)
    saved, broken = saved_checkpoints(folder, template), []
    if resume is None:
        if saved:
            raise UsageError(
                f'{folder} has checkpoints of a training ({saved[0].name}): add --resume to '
                'continue it, or choose another --work-dir'
            )
    elif resume == 'auto':
        try:
            path, broken = checkpoint_to_resume(folder, template)
        except CheckpointError as e:
            raise UsageError(str(e)) from e
        cfg.resume, cfg.load_from = path is not None, path and str(path)
    else:
        cfg.resume, cfg.load_from = True, resume
        paths = [path.resolve() for path in saved]
        if Path(resume).resolve() in paths[1:]:
            raise UsageError(
                f'{folder} has later checkpoints than {resume} ({saved[0].name}), which the '
                'training would overwrite: choose another --work-dir, or move them away'
            )
    return broken


def _check_calibrate(cfg, images: int) -> None:
    if images < 1:
        raise UsageError(f'--calibrate must be a number of images of at least 1, got {images}')
    if type_name(cfg.model) != 'NCModel':
        raise UsageError('--calibrate fits the norms of a converted model: add --to')
    if cfg.model.get('to') == 'BN':
        raise UsageError(
            '--calibrate does not set the running statistics of BatchNorm, which --to BN needs: '
            'leave it out'
        )
    if cfg.launcher != 'none':
        raise UsageError(
            f'--calibrate works with one process, and --launcher is {cfg.launcher}: calibrate in a '
            'short training without it, and give its checkpoint to load_from'
        )


def _use_amp(cfg) -> None:
    if not torch.cuda.is_available():
        raise UsageError(
            '--amp needs a GPU, and torch finds none; without --amp the training is in float32'
        )
    wrapper = cfg.optim_wrapper
    if wrapper.get('type', 'OptimWrapper') not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UsageError(
            f"--amp works with optim_wrapper type 'OptimWrapper', got {wrapper.type!r}"
        )
    wrapper.type = 'AmpOptimWrapper'
    wrapper.setdefault('loss_scale', 'dynamic')
