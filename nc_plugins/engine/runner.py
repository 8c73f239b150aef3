"""From command-line arguments to a config, and from a config to a run of mmengine's Runner."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..convert.kinds import TARGETS
from ..convert.openmmlab import convert_config
from ..records import LOCK
from .config_files import is_data, read_config, registered_types_only
from .distributed import processes
from .explain import explained
from .safe_loading import protect
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


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add --cfg-options."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_Options,
        metavar='KEY=VALUE',
        help='override keys of the config, such as optim_wrapper.optimizer.lr=0.1; write lists as '
        'key="[a,b]" or key=a,b',
    )


def add_conversion_options(parser: argparse.ArgumentParser) -> None:
    """Add --keep and --depthwise, the options of a conversion."""
    parser.add_argument(
        '--keep', nargs='+', metavar='PATH', help='with --to: modules that stay, as backbone.stem'
    )
    parser.add_argument(
        '--depthwise',
        choices=['keep', 'convert'],
        help='with --to: whether depthwise convolutions stay or become NC, default keep',
    )


def conversion_options(args: argparse.Namespace) -> dict:
    """The options of a conversion in ``args``, as keys of NCModel."""
    return {key: value for key in ('keep', 'depthwise') if (value := getattr(args, key))}


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that OpenMMLab's train.py and test.py share."""
    parser.add_argument(
        '--work-dir', help='default: work_dir of the config, else work_dirs/<config>'
    )
    add_config_options(parser)
    parser.add_argument(
        '--to',
        choices=TARGETS,
        help='convert the model to this kind of normalisation, see docs/convert.md',
    )
    add_conversion_options(parser)
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='load checkpoints that contain more than data; they can run code',
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

    Checkpoints are then loaded as data only, unless --trust-checkpoint is given.

    Raises: UsageError.
    """
    cfg = load_config(args)
    protect(trust=args.trust_checkpoint)
    types = registered_types_only() if is_data(args.config) else contextlib.nullcontext()
    with explained(cfg), types:
        yield cfg


def load_config(args: argparse.Namespace) -> Config:
    """Read ``args.config``, then apply --cfg-options, --to, --launcher and --work-dir."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = edited_config(args.config, args.cfg_options)
    name = Path(args.config).stem
    options = conversion_options(args)
    if options and not args.to:
        raise UsageError(f'--{next(iter(options))} is an option of a conversion: add --to')
    if args.to:
        convert_config(cfg, args.to, **options)
        name += f'_to-{args.to.lower()}'

    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', name))
    if Path(cfg.work_dir).exists() and not Path(cfg.work_dir).is_dir():
        raise UsageError(f'work_dir must be a folder, got the file {cfg.work_dir}')
    _set_loader_defaults(cfg)
    return cfg


def edited_config(path: str | Path, options: dict | None) -> Config:
    """Read the config ``path``, and apply the ``options`` of --cfg-options.

    Raises: UsageError.
    """
    path = Path(path)
    if not path.is_file():
        near = did_you_mean(path.name, (p.name for p in path.parent.glob('*.py')))
        raise UsageError(f'there is no config {path}{near}')
    cfg = read_config(path)
    if not cfg.get('model'):
        raise UsageError(f'config {path} has no model')
    if options:
        _check_top_level(options, cfg)
        try:
            cfg.merge_from_dict(options)
        except Exception as e:
            raise UsageError(f'--cfg-options does not fit the config: {one_line(e)}') from e
    check_structure(cfg)
    return cfg


def build_and_run(cfg: Config, action: Callable[[Runner], None]) -> None:
    """Build the Runner of ``cfg`` and call ``action`` with it. A failure deletes nothing.

    Exceptions propagate; :func:`configured` explains them.
    """
    with processes(cfg):
        action(RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg))


@contextlib.contextmanager
def locked(work_dir: str | Path) -> Iterator[None]:
    """Keep other trainings out of ``work_dir``, also those that started on other machines.

    Raises: UsageError if another training is running there, or the folder is not writable.
    """
    if not is_first_process():
        yield
        return
    folder = Path(work_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, blocking=False)
        lock.acquire()
    except Timeout:
        raise UsageError(
            f'another training is running in {folder}: wait for it, or choose another --work-dir'
        ) from None
    except OSError as e:
        raise UsageError(f'work_dir {folder} is not writable ({e.strerror})') from e
    try:
        yield
    finally:
        lock.release()


def _check_top_level(options: dict, cfg: Config) -> None:
    known = {*cfg.keys(), *inspect.signature(Runner.__init__).parameters, *RUNTIME_KEYS}
    known -= {'self', 'cfg'}
    for option in options:
        key = option.split('.')[0]
        if key == 'custom_imports':
            raise UsageError(
                '--cfg-options: custom_imports comes too late, because imports run when the config '
                'file is read: write it in the file'
            )
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
