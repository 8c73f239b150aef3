"""The rooms of nc_plugins and the imports allowed between them: arrows point one way."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / 'nc_plugins'
REPO_FOLDERS = {'benchmarks', 'configs', 'studies', 'tests', 'tools'}
OPENMMLAB = {'mmengine', 'mmcv', 'mmdet', 'mmpretrain', 'mmseg'}
# room -> the other rooms it may import. The package root may import any of them.
ROOMS = {
    '__main__': set(),
    'ops': set(),
    'layers': {'ops'},
    'models': {'ops', 'layers'},
    'convert': {'ops', 'layers'},
    'engine': {'ops', 'layers', 'convert', 'datasets', 'records'},
    'exporting': {'layers'},
    'datasets': set(),
    'processes': set(),
    'records': set(),
    'report': {'records', 'processes'},
}


def imported_names(tree: ast.AST, package: tuple[str, ...]):
    """Yield every imported dotted name, relative ones resolved; `from a import b` gives a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            base = [*parents, *(node.module or '').split('.')]
            yield from ('.'.join(filter(None, [*base, alias.name])) for alias in node.names)


def bad_imports(path: str, source: str) -> list[str]:
    """Imports in the file nc_plugins/``path`` that its room may not make."""
    parts = Path(path).with_suffix('').parts
    room = parts[0] if parts[0] != '__init__' else None
    if room is not None and room not in ROOMS:
        return [f'{path}: room {room!r} is not in ROOMS']
    bad = []
    for name in imported_names(ast.parse(source), ('nc_plugins', *parts[:-1])):
        top, _, rest = name.partition('.')
        if top == 'nc_plugins':
            target = rest.split('.')[0]
            # A room that imports the root gets every other room through it.
            wrong = room and target not in {room, '__version__'} | ROOMS[room]
        elif room == 'ops':
            allowed = {'torch', 'triton'} if parts[-1].startswith('triton') else {'torch'}
            wrong = top not in allowed | sys.stdlib_module_names
        elif room == 'records':
            wrong = top not in sys.stdlib_module_names
        elif room == 'report':
            wrong = top in {'torch', 'torchvision'} | OPENMMLAB | REPO_FOLDERS
        else:
            wrong = top in REPO_FOLDERS
        if wrong:
            bad.append(f'{path} imports {name}')
    return bad


def test_every_arrow_in_the_package_is_allowed():
    sources = {f.relative_to(PACKAGE).as_posix(): f.read_text() for f in PACKAGE.rglob('*.py')}
    assert {'__init__.py', 'ops/__init__.py', 'layers/__init__.py'} <= sources.keys()
    assert [bad for item in sources.items() for bad in bad_imports(*item)] == []


def test_the_command_nc_starts_without_any_package():
    names = imported_names(ast.parse((PACKAGE.parent / 'nc_cli.py').read_text()), ())
    assert {name.partition('.')[0] for name in names} <= sys.stdlib_module_names


@pytest.mark.parametrize(
    ('path', 'source'),
    [
        ('ops/conv.py', 'from nc_plugins.layers import NCConv2d'),
        ('ops/conv.py', 'from ..layers.conv import NCConv2d'),
        ('ops/conv.py', 'from .. import layers'),
        ('ops/conv.py', 'def f():\n    import mmcv.ops'),
        ('ops/conv.py', 'import numpy as np'),
        ('ops/conv.py', 'import triton'),
        ('ops/triton_kernels.py', 'import numpy as np'),
        ('layers/conv.py', 'import nc_plugins'),
        ('layers/conv.py', 'from nc_plugins import convert_model'),
        ('layers/__init__.py', 'from ..engine import hooks'),
        ('convert.py', 'from .models import CycleGAN'),
        ('models/cyclegan.py', 'import nc_plugins.datasets.digits'),
        ('datasets/digits.py', 'from nc_plugins import ops'),
        ('engine/hooks.py', 'from tools import train'),
        ('report/tables.py', 'import torch'),
        ('report/tables.py', 'from ..engine import hooks'),
        ('__init__.py', 'import configs'),
        ('helpers/text.py', ''),
    ],
)
def test_a_bad_arrow_is_caught(path, source):
    assert len(bad_imports(path, source)) == 1


@pytest.mark.parametrize(
    ('path', 'source'),
    [
        ('__init__.py', 'from .convert import convert_model\nfrom . import layers'),
        ('ops/conv.py', 'import math\nimport torch.nn.functional as F\nfrom . import reference'),
        ('ops/aten/conv.py', 'from ..reference import nc_conv2d'),
        ('ops/triton_kernels.py', 'import triton.language as tl'),
        ('layers/conv.py', 'from ..ops import nc_conv2d\nfrom nc_plugins import ops'),
        ('layers/registry.py', 'from mmengine.registry import MODELS'),
        ('convert.py', 'from .layers import NCConv2d\nimport nc_plugins.layers.conv'),
        ('engine/hooks.py', 'from nc_plugins import __version__'),
        ('report/tables.py', 'import csv\nimport matplotlib.pyplot as plt\nfrom .runs import rows'),
    ],
)
def test_a_good_arrow_passes(path, source):
    assert bad_imports(path, source) == []
