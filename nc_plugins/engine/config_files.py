"""Reads config files. A config in Python is a program; a config in JSON or YAML runs no code."""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import yaml
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.utils import import_modules_from_strings

from .usage import UsageError, listed, one_line

DATA_SUFFIXES = ('.json', '.yaml', '.yml')
# The packages that a config in JSON or YAML may import, inherit from and take types from.
PACKAGES = ('mmcv', 'mmdet', 'mmengine', 'mmpretrain', 'mmseg', 'nc_plugins')
# mmdet::folder/file.py, without a part that leaves the package's folder.
PACKAGE_BASE = re.compile(rf'({"|".join(PACKAGES)})::([\w-][\w.+-]*/)*[\w-][\w.+-]*\.py')


def is_data(path: str | Path) -> bool:
    """True if the config ``path`` is JSON or YAML, and False if it is a Python program."""
    return Path(path).suffix in DATA_SUFFIXES


def read_config(path: str | Path, import_modules: bool = True) -> Config:
    """Read a config with its base configs, and import its ``custom_imports`` if asked to.

    JSON and YAML are read without mmengine's substitution of environment variables and file names.

    Raises:
        UsageError: the config does not load, or a config in JSON or YAML would run code.
    """
    path = Path(path)
    if not is_data(path):
        with _loading(path):
            return Config.fromfile(path, import_custom_modules=import_modules)
    _check_data_file(path)
    with _loading(path):
        cfg = Config.fromfile(
            path,
            use_predefined_variables=False,
            use_environment_variables=False,
            import_custom_modules=False,
        )
    scope, imports = cfg.get('default_scope'), cfg.get('custom_imports') or {}
    if scope is not None and scope not in PACKAGES:
        raise UsageError(_refusal(path, f'the default_scope {scope!r}'))
    for module in listed(imports.get('imports')) if isinstance(imports, dict) else [imports]:
        if not isinstance(module, str) or module.partition('.')[0] not in PACKAGES:
            raise UsageError(_refusal(path, f'the custom import {module!r}'))
    if import_modules and imports:
        with _loading(path):
            import_modules_from_strings(**imports)
    return cfg


@contextlib.contextmanager
def registered_types_only() -> Iterator[None]:
    """Let types in configs be registered names and nothing else, until the block ends.

    mmengine imports a type that no registry knows: type='os.system' is called with the other keys
    of its dict as arguments. It also imports the module 'scope.registry' for a type 'scope.Name'.
    """
    module = sys.modules[Registry.__module__]
    saved = {name: getattr(module, name) for name in ('get_object_from_string', 'import_module')}
    module.get_object_from_string = lambda name: None
    module.import_module = _import_package
    try:
        yield
    finally:
        for name, function in saved.items():
            setattr(module, name, function)


def _import_package(name: str):
    if name.partition('.')[0] not in PACKAGES:
        raise ImportError(f'a config in JSON or YAML cannot import {name}')
    return importlib.import_module(name)


class _Loader(getattr(yaml, 'CSafeLoader', yaml.SafeLoader)):
    """The safe loader and the tuples that mmengine writes. Other tags can call any function."""


_Loader.add_constructor(
    'tag:yaml.org,2002:python/tuple',
    lambda loader, node: tuple(loader.construct_sequence(node, deep=True)),
)


def _check_data_file(path: Path) -> None:
    """Check that reading ``path`` and its bases, as mmengine reads them, runs no code."""
    with _loading(path):
        text = path.read_text(encoding='utf-8')
        content = json.loads(text) if path.suffix == '.json' else yaml.load(text, _Loader)
    if not isinstance(content, dict):
        raise UsageError(f'config {path} must contain a mapping, got {type(content).__name__}')
    for base in listed(content.get('_base_')):
        if isinstance(base, str) and is_data(base) and '::' not in base:
            _check_data_file(path.parent / base)
        elif not isinstance(base, str) or not PACKAGE_BASE.fullmatch(base):
            raise UsageError(_refusal(path, f'the _base_ {base!r}'))


def _refusal(path: Path, what: str) -> str:
    return (
        f'config {path} has {what}, which could run any code: a config in JSON or YAML is limited '
        f'to JSON, YAML and the packages {", ".join(PACKAGES)}; write it in Python if you trust it'
    )


@contextlib.contextmanager
def _loading(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # The config is the user's program or data, so any exception is a mistake of the user.
        places = [f for f in traceback.extract_tb(error.__traceback__) if f.name == '<module>']
        inside = [f for f in places if f.filename.endswith('.py') and Path(f.filename).is_file()]
        line = f' ({inside[-1].filename}, line {inside[-1].lineno})' if inside else ''
        raise UsageError(
            f'config {path} does not load: {type(error).__name__}: {one_line(error)}{line}'
        ) from error
