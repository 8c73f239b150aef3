"""The package imports on every platform, and with torch as the only other package."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / 'nc_plugins').rglob('*.py'))
UNIX_ONLY = {'fcntl', 'resource'}  # of the standard library; psutil and filelock replace them


def imported_packages(source: str) -> set[str]:
    """Top-level names of all imports in a module, those inside functions included."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition('.')[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.partition('.')[0])
    return names


def test_every_module_is_seen():
    names = {path.relative_to(ROOT).as_posix() for path in MODULES}
    assert {'nc_plugins/__init__.py', 'nc_plugins/ops/cpu.py'} <= names


@pytest.mark.parametrize(
    'source',
    ['import fcntl', 'def f():\n    from resource import getrusage', 'import os, resource'],
)
def test_an_import_that_only_unix_has_is_found(source):
    assert imported_packages(source) & UNIX_ONLY


@pytest.mark.parametrize('path', MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_module_imports_what_only_unix_has(path):
    assert not imported_packages(path.read_text()) & UNIX_ONLY


TORCH_ALONE = """
import sys
names = ['mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'torchvision', 'psutil', 'rich']
names += ['sklearn', 'matplotlib', 'resource', 'fcntl']
for name in names:
    sys.modules[name] = None  # every import of it raises ModuleNotFoundError
try:
    import mmengine
except ModuleNotFoundError:
    pass
else:
    raise SystemExit('mmengine was imported, so this program tests nothing')

import torch
import nc_plugins
from nc_plugins.layers import NCConv2d

out = NCConv2d(3, 4, 3, padding=1)(torch.randn(2, 3, 8, 8))
out.square().sum().backward()
print(nc_plugins.__version__, tuple(out.shape))
"""


def test_the_package_works_with_torch_alone():
    command = [sys.executable, '-W', 'ignore', '-c', TORCH_ALONE]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].endswith('(2, 4, 8, 8)')


def test_setup_reports_a_backend_that_it_cannot_build():
    environment = {**os.environ, 'CXX': '/no/compiler'}
    command = [sys.executable, 'setup.py', '--name']
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == 'nc_plugins'
    (message,) = (line for line in result.stderr.splitlines() if 'was not built' in line)
    assert '/no/compiler' in message and 'pip install -v --no-build-isolation' in message
