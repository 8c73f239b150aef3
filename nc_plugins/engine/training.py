"""What the flags of tools/train.py do to a config."""

from __future__ import annotations

import torch

from .usage import UsageError

HOOKS = ('NCCensusHook', 'RunRecordHook')


def check_trainable(cfg) -> None:
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper'):
        if not cfg.get(key):
            raise UsageError(f'{cfg.filename} has no {key}, so there is nothing to train')


def apply_training_flags(cfg, *, amp: bool, auto_scale_lr: bool, resume: str | None) -> None:
    """Put --amp, --auto-scale-lr, --resume and the two hooks into ``cfg``, in place.

    Raises: UsageError if a flag cannot be honoured.
    """
    if amp:
        _use_amp(cfg)
    if auto_scale_lr:
        if not (cfg.get('auto_scale_lr') or {}).get('base_batch_size'):
            raise UsageError(
                '--auto-scale-lr needs auto_scale_lr.base_batch_size, the batch size that lr '
                f'belongs to, and {cfg.filename} has none'
            )
        cfg.auto_scale_lr.enable = True
    if resume is not None:
        cfg.resume = True
        cfg.load_from = None if resume == 'auto' else resume
    hooks = list(cfg.get('custom_hooks') or [])
    listed = {str(hook.get('type')).rpartition('.')[2] for hook in hooks}
    cfg.custom_hooks = hooks + [dict(type=name) for name in HOOKS if name not in listed]


def _use_amp(cfg) -> None:
    if not torch.cuda.is_available():
        raise UsageError('--amp needs a GPU and torch sees none; drop --amp to train in float32')
    wrapper = cfg.optim_wrapper
    if wrapper.get('type', 'OptimWrapper') not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UsageError(
            f"--amp works with optim_wrapper type 'OptimWrapper', got {wrapper.type!r}"
        )
    wrapper.type = 'AmpOptimWrapper'
    wrapper.setdefault('loss_scale', 'dynamic')
