"""Applies the flags of tools/train.py to a config."""

from __future__ import annotations

import torch

from .schema import check_train_loop
from .usage import UsageError, type_name

HOOKS = ('NCCensusHook', 'RunRecordHook', 'KeepRandomStateHook')


def check_trainable(cfg) -> None:
    """Raise UsageError if ``cfg`` has no training part, or a loop that cannot be built."""
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper'):
        if not cfg.get(key):
            raise UsageError(f'{cfg.filename} has no {key}, so there is nothing to train')
    check_train_loop(cfg)


def apply_training_flags(cfg, *, amp: bool, auto_scale_lr: bool, resume: str | None) -> None:
    """Apply --amp, --auto-scale-lr and --resume to ``cfg`` in place, and add the ``HOOKS``.

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
    if resume is not None:
        cfg.resume = True
        cfg.load_from = None if resume == 'auto' else resume
    hooks = list(cfg.get('custom_hooks') or [])
    listed = {type_name(hook) for hook in hooks}
    cfg.custom_hooks = hooks + [dict(type=name) for name in HOOKS if name not in listed]


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
