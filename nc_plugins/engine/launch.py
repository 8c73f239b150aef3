"""What tools/train.py and tools/test.py share: arguments, config, Runner, and leaving no debris."""

from __future__ import annotations

import argparse
import inspect
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.hooks import Hook
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..datasets.loading import DataError
from .usage import UsageError, did_you_mean, explain, is_first_process, one_line

# Top-level keys that mmengine reads besides the arguments of its Runner, and ours.
RUNTIME_KEYS = {
    'activation_checkpointing',
    'compile',
    'custom_imports',
    'data_command',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'run_fingerprint',
    'runner_type',
    'sync_bn',
}


class _Options(DictAction):
    """mmengine's DictAction, with argparse's own error for what it cannot read."""

    def __call__(self, parser, namespace, values, option_string=None):
        for value in values:
            if '=' not in value.strip('='):
                parser.error(f'{option_string} wants KEY=VALUE, got {value!r}')
        try:
            super().__call__(parser, namespace, values, option_string)
        except (AssertionError, ValueError) as e:
            parser.error(f'{option_string}: {e}')


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that OpenMMLab's train and test tools share, in their meanings."""
    parser.add_argument(
        '--work-dir', help='default: work_dir of the config, else work_dirs/<config>'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_Options,
        metavar='KEY=VALUE',
        help='override keys of the config, such as optim_wrapper.optimizer.lr=0.1; lists are '
        'key="[a,b]" or key=a,b',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='default none',
    )
    # torch.distributed.launch passes it; torchrun sets the variable.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def load_config(args: argparse.Namespace) -> Config:
    """Read ``args.config``, then apply --cfg-options, --launcher and --work-dir, in this order."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    path = Path(args.config)
    if not path.is_file():
        near = did_you_mean(path.name, (p.name for p in path.parent.glob('*.py')))
        raise UsageError(f'config {path} is not there{near}')
    try:
        cfg = Config.fromfile(path)
    except Exception as e:
        # A config is the user's program: whatever goes wrong in it is theirs to mend.
        raise UsageError(f'config {path} does not load: {type(e).__name__}: {one_line(e)}') from e
    if not cfg.get('model'):
        raise UsageError(f'config {path} has no model')
    if args.cfg_options:
        _check_top_level(args.cfg_options, cfg)
        try:
            cfg.merge_from_dict(args.cfg_options)
        except (IndexError, KeyError, TypeError) as e:
            raise UsageError(f'--cfg-options does not fit the config: {one_line(e)}') from e

    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', path.stem))
    if Path(cfg.work_dir).exists() and not Path(cfg.work_dir).is_dir():
        raise UsageError(f'work_dir {cfg.work_dir} is a file, a folder is wanted')
    _set_loader_defaults(cfg)
    return cfg


def launch(cfg: Config, go: Callable[[Runner], None]) -> None:
    """Build the runner and hand it to ``go``.

    A run that fails before its first training iteration has finished takes back the files and
    folders it made; those that were there before stay.

    Raises: UsageError for such a failure if the config is to blame, and for an unusable data file
        whenever it is met; anything else as it comes.
    """
    work_dir = Path(cfg.work_dir).absolute()
    made = _missing_folders(work_dir)
    before = set() if made else set(work_dir.iterdir())
    first = _FirstIteration()
    try:
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
        runner.register_hook(first, priority='LOWEST')
        go(runner)
    except BaseException as e:
        if first.finished:
            if isinstance(e, DataError):
                raise UsageError(e.sentence) from e
            raise
        if is_first_process():
            _take_back(made)
            if not made:
                _take_back_new(work_dir, before)
        sentence = explain(e) if isinstance(e, Exception) else None
        if sentence is None:
            raise
        raise UsageError(sentence) from e


class _FirstIteration(Hook):
    finished = False

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.finished = True


def _missing_folders(folder: Path) -> list[Path]:
    """``folder`` and those of its parents that are not there yet, innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _take_back(made: list[Path]) -> None:
    if made:
        shutil.rmtree(made[0], ignore_errors=True)
    for parent in made[1:]:
        if parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()


def _take_back_new(folder: Path, before: set[Path]) -> None:
    for entry in set(folder.iterdir()) - before:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _check_top_level(options: dict, cfg: Config) -> None:
    known = {*cfg.keys(), *inspect.signature(Runner.__init__).parameters, *RUNTIME_KEYS}
    known -= {'self', 'cfg'}
    for option in options:
        key = option.split('.')[0]
        if key not in known:
            raise UsageError(f"--cfg-options: unknown key '{key}'" + did_you_mean(key, known))


def _set_loader_defaults(cfg: Config) -> None:
    """What mmpretrain's own tools fill in, and its configs rely on."""
    if cfg.get('default_scope') != 'mmpretrain':
        return
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(name)
        if loader:
            loader.setdefault('pin_memory', torch.cuda.is_available())
            loader.setdefault('persistent_workers', bool(loader.get('num_workers')))
            loader.setdefault('collate_fn', dict(type='default_collate'))
