"""What the wheel and the source distribution contain."""

import configparser
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def files(folder, *suffixes):
    """The files below a folder of the repository, without caches."""
    found = (path for path in (ROOT / folder).rglob('*') if path.is_file())
    names = {path.relative_to(ROOT).as_posix() for path in found if '__pycache__' not in path.parts}
    return {name for name in names if name.endswith(suffixes or ('',)) and '.so' not in name}


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    """A folder with the wheel and the sdist, without the compiled backend."""
    folder = tmp_path_factory.mktemp('dist')
    command = [sys.executable, 'setup.py', '-q', 'egg_info', '-e', folder, 'build', '-b', folder]
    command += ['bdist_wheel', '-d', folder, '-b', folder / 'wheel', 'sdist', '-d', folder]
    environment = {**os.environ, 'CXX': '/no/compiler'}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.slow
def test_the_wheel(built):
    with zipfile.ZipFile(next(built.glob('*.whl'))) as wheel:
        names = set(wheel.namelist())
        (entry_points,) = (name for name in names if name.endswith('entry_points.txt'))
        scripts = configparser.ConfigParser()
        scripts.read_string(wheel.read(entry_points).decode())
    assert dict(scripts['console_scripts']) == {'nc': 'nc_cli:main'}
    package = files('nc_plugins', '.py', '.cpp', '.h', '.html', '.css') | {'nc_cli.py'}
    index = {path.name for path in ROOT.glob('model-index.yml')}
    brought = {f'nc_plugins/.mim/{name}' for name in files('configs') | files('tools') | index}
    info = {name for name in names if '.dist-info/' in name}
    assert names - info - {'nc_plugins/csrc/.clang-format'} == package | brought


@pytest.mark.slow
def test_the_source_distribution(built):
    with tarfile.open(next(built.glob('*.tar.gz'))) as archive:
        names = {name.partition('/')[2] for name in archive.getnames()}
    code = ('benchmarks', 'configs', 'nc_plugins', 'studies', 'tests', 'tools')
    for folder in (*code, 'docs', 'requirements'):
        assert files(folder) <= names
    assert {'Makefile', 'README.md', 'LICENSE', 'pyproject.toml', 'setup.py', 'nc_cli.py'} <= names
    assert not [name for name in names if name.endswith(('.pyc', '.so'))]
