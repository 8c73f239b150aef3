"""Checks before a run: packages, data and checkpoints. Nothing is built or written."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, init_default_scope

from ..datasets.images import is_hidden, leave_out_hidden_folders, warn_of_unread_images
from .usage import UsageError, did_you_mean, listed, one_line

# default_scope -> name for pip, and whether the package needs mmcv's compiled operators
PACKAGES = {
    'mmpretrain': ('onedl-mmpretrain', False),
    'mmdet': ('onedl-mmdetection', True),
    'mmseg': ('onedl-mmsegmentation', True),
}


def enter_scope(cfg) -> None:
    """Import the package of the config's ``default_scope`` and make it the current scope.

    Raises: UsageError if the package is missing or does not import.
    """
    scope = cfg.get('default_scope') or 'mmengine'
    pip_name, needs_ops = PACKAGES.get(scope, (None, False))
    if find_spec(scope) is None:
        if pip_name is None:
            raise UsageError(
                f"default_scope '{scope}' is not an installed package"
                + did_you_mean(scope, [*PACKAGES, 'mmengine', 'nc_plugins'])
            )
        raise UsageError(
            f'the config needs {scope}, which is not installed: pip install {pip_name}'
        )
    if needs_ops:
        try:
            importlib.import_module('mmcv._ext')
        except ImportError as e:
            raise UsageError(
                f"{scope} needs mmcv's compiled operators, and those of this mmcv do not load "
                f'({one_line(e)}): run `python -m nc_plugins install-mmcv`, which builds them for '
                'the installed torch'
            ) from e
    try:
        importlib.import_module(scope)
    except (ImportError, AssertionError) as e:
        raise UsageError(f'{scope} is installed but does not import: {one_line(e)}') from e
    init_default_scope(scope)


def check_data(cfg, loaders: Iterable[str]) -> None:
    """Raise UsageError if files of the dataloaders ``loaders`` are missing or cannot be used.

    From then on, the datasets of this process leave out hidden folders. Datasets that download
    their files are not checked. Call ``enter_scope`` before.
    """
    leave_out_hidden_folders()
    class_folders: dict[Path, set[str]] = {}
    for loader in loaders:
        metrics = listed(cfg.get(loader.replace('dataloader', 'evaluator')))
        for metric in metrics:
            path = metric.get('ann_file')  # of mmdet's COCO metrics
            if isinstance(path, str) and '://' not in path and not Path(path).exists():
                raise UsageError(f'{loader}: {path} does not exist{_remedy(cfg)}')
        for dataset in _leaves((cfg.get(loader) or {}).get('dataset')):
            cls = _dataset_class(dataset)
            for path in _paths(dataset, cls):
                if not path.expanduser().exists():
                    raise UsageError(f'{loader}: {path} does not exist{_remedy(cfg)}')
            _check_content(dataset, cls, loader, metrics)
            reads_folders = cls is not None and cls.__name__ == 'CustomDataset'
            if reads_folders and not dataset.get('ann_file') and not _remote(dataset):
                folder = _joined(dataset, _prefixes(dataset).get('img_path', ''))
                class_folders[folder] = {
                    p.name for p in folder.iterdir() if p.is_dir() and not is_hidden(p.name)
                }
                extensions = inspect.signature(cls.__init__).parameters['extensions'].default
                extensions = tuple(dataset.get('extensions', extensions))
                warn_of_unread_images(folder, _ends_with(extensions), loader)
    _check_same_classes(class_folders, cfg)


def _check_content(dataset: dict, cls: type | None, loader: str, metrics: list[dict]) -> None:
    """Look into the files of mmdet and mmseg."""
    bases = {base.__name__ for base in getattr(cls, '__mro__', ())}
    # Imported here, because `make demo` does not need msgspec.
    if 'CocoDataset' in bases:
        from .coco import check_coco

        check_coco(dataset, cls, loader, metrics)
    elif 'BaseSegDataset' in bases:
        from .label_maps import check_segmentation_files

        check_segmentation_files(dataset, cls, loader)


def _ends_with(suffixes: tuple[str, ...]) -> Callable[[str], bool]:
    return lambda name: name.lower().endswith(suffixes)


def check_checkpoint(path: str | None) -> None:
    """Raise UsageError if a local checkpoint is not a file. URLs are not checked."""
    if path is not None and '://' not in path and not Path(path).expanduser().is_file():
        problem = 'is a folder' if Path(path).is_dir() else 'does not exist'
        raise UsageError(f'checkpoint {path} {problem}')


def _check_same_classes(folders: dict[Path, set[str]], cfg) -> None:
    """Check that all splits have the same class folders: labels are indices of the sorted names."""
    pairs = list(folders.items())
    for path, names in pairs:
        first_path, first_names = pairs[0]
        if not names or names != first_names:
            raise UsageError(
                f'{path} has {len(names)} class folders and {first_path} has {len(first_names)}, '
                f'but both must have the same{_remedy(cfg)}'
            )


def _leaves(dataset) -> Iterator[dict]:
    """The datasets that read files, unwrapped from RepeatDataset, ConcatDataset and others."""
    for item in listed(dataset):
        if not isinstance(item, dict):
            continue
        inner = [*listed(item.get('dataset')), *listed(item.get('datasets'))]
        if inner:
            yield from _leaves(inner)
        else:
            yield item


def _dataset_class(dataset: dict) -> type | None:
    name = dataset.get('type')
    if isinstance(name, str):
        with DATASETS.switch_scope_and_registry(dataset.get('_scope_')) as registry:
            name = registry.get(name)
    return name if inspect.isclass(name) else None  # building it reports an unknown type


def _paths(dataset: dict, cls: type | None) -> Iterator[Path]:
    if cls is not None and 'download' in (known := inspect.signature(cls.__init__).parameters):
        default = known['download'].default
        if dataset.get('download', default):
            return
    if _remote(dataset):
        return
    if dataset.get('data_root'):
        yield Path(dataset['data_root'])
    # A class that joins its paths in another way checks them itself.
    if cls is None or getattr(cls, '_join_prefix', None) is not BaseDataset._join_prefix:
        return
    for part in (dataset.get('ann_file'), *_prefixes(dataset).values()):
        if isinstance(part, str) and part and '://' not in part:
            yield _joined(dataset, part)


def _remote(dataset: dict) -> bool:
    """True if a file client reads the data (s3://, petrel://), which cannot be checked here."""
    paths = (dataset.get('data_root'), *_prefixes(dataset).values())
    return any('://' in path for path in paths if isinstance(path, str))


def _prefixes(dataset: dict) -> dict:
    prefix = dataset.get('data_prefix') or {}
    return {'img_path': prefix} if isinstance(prefix, str) else prefix


def _joined(dataset: dict, part: str) -> Path:
    return Path(dataset.get('data_root') or '', part)


def _remedy(cfg) -> str:
    command = cfg.get('data_command')
    return f'; make it with `{command}`' if command else ''
