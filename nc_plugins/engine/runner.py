"""From command-line arguments to a config, and from a config to a run of mmengine's Runner."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.hooks import Hook
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

from .config_files import is_data, read_config, registered_types_only
from .explain import explained
from .schema import check_structure
from .usage import UsageError, did_you_mean, is_first_process, one_line

# Top-level config keys that are no arguments of the Runner: those that mmengine reads, and ours.
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
    """mmengine's DictAction that reports malformed options as argparse errors."""

    def __call__(self, parser, namespace, values, option_string=None):
        for value in values:
            if '=' not in value.strip('='):
                parser.error(f'{option_string} must be KEY=VALUE, got {value!r}')
        try:
            super().__call__(parser, namespace, values, option_string)
        except (AssertionError, ValueError) as e:
            parser.error(f'{option_string}: {e}')


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that OpenMMLab's train.py and test.py share."""
    parser.add_argument(
        '--work-dir', help='default: work_dir of the config, else work_dirs/<config>'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_Options,
        metavar='KEY=VALUE',
        help='override keys of the config, such as optim_wrapper.optimizer.lr=0.1; write lists as '
        'key="[a,b]" or key=a,b',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='default none',
    )
    # torch.distributed.launch passes this argument. torchrun sets LOCAL_RANK instead.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


@contextlib.contextmanager
def configured(args: argparse.Namespace) -> Iterator[Config]:
    """Yield the config of ``args``. In the block every exception becomes one sentence.

    Raises: UsageError.
    """
    cfg = load_config(args)
    types = registered_types_only() if is_data(args.config) else contextlib.nullcontext()
    with explained(cfg), types:
        yield cfg


def load_config(args: argparse.Namespace) -> Config:
    """Read ``args.config``, then apply --cfg-options, --launcher and --work-dir, in this order."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    path = Path(args.config)
    if not path.is_file():
        near = did_you_mean(path.name, (p.name for p in path.parent.glob('*.py')))
        raise UsageError(f'there is no config {path}{near}')
    cfg = read_config(path)
    if not cfg.get('model'):
        raise UsageError(f'config {path} has no model')
    if args.cfg_options:
        _check_top_level(args.cfg_options, cfg)
        try:
            cfg.merge_from_dict(args.cfg_options)
        except Exception as e:
            raise UsageError(f'--cfg-options does not fit the config: {one_line(e)}') from e

    check_structure(cfg)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', path.stem))
    if Path(cfg.work_dir).exists() and not Path(cfg.work_dir).is_dir():
        raise UsageError(f'work_dir must be a folder, got the file {cfg.work_dir}')
    _set_loader_defaults(cfg)
    return cfg


def build_and_run(cfg: Config, action: Callable[[Runner], None]) -> None:
    """Build the Runner of ``cfg`` and call ``action`` with it.

    After a failure before the end of the first training iteration, the files and folders that the
    run has created in ``work_dir`` are deleted.

    Exceptions propagate; :func:`configured` explains them.
    """
    work_dir = Path(cfg.work_dir).absolute()
    # work_dir and its parents that do not exist yet, innermost first.
    missing = [path for path in (work_dir, *work_dir.parents) if not path.exists()]
    before = set() if missing else set(work_dir.iterdir())
    first = _FirstIteration()
    try:
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
        runner.register_hook(first, priority='LOWEST')
        action(runner)
    except BaseException:
        if not first.finished and is_first_process():
            # A thread of TensorBoard would go on writing into a folder that is deleted.
            with contextlib.suppress(RuntimeError):  # there is none yet
                Visualizer.get_current_instance().close()
            _delete_new(work_dir, before)
            for folder in missing:
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
        raise


class _FirstIteration(Hook):
    finished = False

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.finished = True


def _delete_new(folder: Path, before: set[Path]) -> None:
    """Delete the entries of ``folder`` that are not in ``before``."""
    for entry in set(folder.iterdir()) - before if folder.is_dir() else ():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):  # Windows keeps open files
                entry.unlink()


def _check_top_level(options: dict, cfg: Config) -> None:
    known = {*cfg.keys(), *inspect.signature(Runner.__init__).parameters, *RUNTIME_KEYS}
    known -= {'self', 'cfg'}
    for option in options:
        key = option.split('.')[0]
        if key not in known:
            raise UsageError(f"--cfg-options: unknown key '{key}'" + did_you_mean(key, known))


def _set_loader_defaults(cfg: Config) -> None:
    """Fill in the keys that mmpretrain's own tools add to its configs."""
    if cfg.get('default_scope') != 'mmpretrain':
        return
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(name)
        if loader:
            loader.setdefault('pin_memory', torch.cuda.is_available())
            loader.setdefault('persistent_workers', bool(loader.get('num_workers')))
            loader.setdefault('collate_fn', dict(type='default_collate'))
