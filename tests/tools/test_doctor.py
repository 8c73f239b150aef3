"""tools/doctor.py: what it finds in broken environments, and the line that mends each."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import doctor
import pytest

ROOT = Path(__file__).resolve().parents[2]
PIP = f'{shlex.quote(sys.executable)} -m pip install'
# Not installed, for the program that follows.
MISSING = """
import runpy, sys
for name in {names}:
    sys.modules[name] = None
sys.path.insert(0, 'tools')
runpy.run_path('tools/doctor.py', run_name='__main__')
"""


def examine(*names, folder=None):
    """Run the doctor where the modules ``names`` are not installed, and ``folder`` comes first."""
    path = os.pathsep.join(str(p) for p in (folder, ROOT) if p)
    command = [sys.executable, '-c', MISSING.format(names=names)]
    env = {**os.environ, 'PYTHONPATH': path}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert done.stderr == ''
    return done.returncode, done.stdout.splitlines()


def line_below(lines, start):
    (place,) = (i for i, line in enumerate(lines) if line.startswith(start))
    return lines[place + 1].strip()


def test_without_torch():
    code, lines = examine('torch')
    assert code == 1
    wanted = f'{PIP} torch'
    assert line_below(lines, 'WRONG torch does not import: ModuleNotFoundError') == wanted
    assert lines[-1] == 'WRONG: 1. Run the line below each, and then this check again.'


def test_a_torch_that_does_not_load(tmp_path):
    (tmp_path / 'torch.py').write_text("raise OSError('libcudart.so.13: cannot open')")
    code, lines = examine(folder=tmp_path)
    assert code == 1
    assert line_below(lines, 'WRONG torch does not import: OSError: libcudart.so.13').endswith(
        '--force-reinstall torch'
    )


def test_without_the_compiled_backend_and_openmmlab():
    """The backend is wrong. OpenMMLab and the packages of the tools are only noted."""
    code, lines = examine('nc_plugins.ops._C', 'mmengine', 'rich')
    assert code == 1
    start = "WRONG on cpu: backend 'auto' runs 'aten' ("
    (found,) = (line for line in lines if line.startswith(start))
    assert "'cpu': its C++ extension was not compiled)" in found
    assert line_below(lines, start) == f'{PIP} -v --no-deps --force-reinstall -e {ROOT}'
    assert line_below(lines, 'note  mmengine is not installed').startswith(f'{PIP} onedl-mmengine')
    assert line_below(lines, 'note  not installed: rich (for compare)') == f'{PIP} rich'


def test_an_mmcv_without_operators(tmp_path, monkeypatch):
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv/__init__.py').write_text('')
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    found = doctor.check_operators(['mmdet'])
    assert found.state == 'WRONG'
    assert '(for mmdet) do not run: ' in found.text and "No module named 'mmcv.ops'" in found.text
    tool = ROOT / 'tools/install_mmcv.py'
    build = f"{PIP} 'setuptools>=80,<81' wheel ninja psutil"
    assert found.mend == f'{build} && {sys.executable} {tool}'
    assert doctor.check_operators([]).state == 'note'


@pytest.mark.parametrize(
    ('problem', 'package'),
    [
        ("No module named 'pycocotools.mask'", 'pycocotools'),
        ("No module named 'cv2'", 'opencv-python-headless'),
        ("No module named 'mmcv.ops'", '--force-reinstall --no-deps onedl-mmdetection'),
        ('MMCV==2.2.0 is used but incompatible', '--force-reinstall --no-deps onedl-mmdetection'),
    ],
)
def test_an_import_that_fails_names_what_to_install(problem, package):
    assert doctor.mending(problem, 'onedl-mmdetection') == f'{PIP} {package}'


def test_nc_of_another_program(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    assert [*doctor.check_command()] == []
    (tmp_path / 'nc').write_text('#!/bin/sh\n')
    (tmp_path / 'nc').chmod(0o755)
    (found,) = doctor.check_command()
    assert found.state == 'note' and f'{tmp_path / "nc"}, which is not' in found.text
    assert found.mend.endswith(' -m nc_plugins')


@pytest.mark.slow
def test_nothing_is_wrong_here():
    code, lines = examine()
    assert code == 0, lines
    assert lines[-1] == 'Nothing is wrong.'
    assert {line.split()[1] for line in lines if line.startswith('ok')} >= {'torch', 'mmengine'}
