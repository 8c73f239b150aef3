"""The command nc: every subcommand is the program of the same name in tools/."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import nc_cli

pytest.importorskip('mmengine')

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def nc(monkeypatch, capsys):
    """Calls nc in this process. Returns the exit code, stdout and stderr."""
    monkeypatch.setattr(sys, 'path', [*sys.path])
    before = sys.modules.pop('test', None)  # of the standard library, or of another test

    def call(*args):
        monkeypatch.setattr(sys, 'argv', ['nc', *map(str, args)])
        try:
            code = nc_cli.main()
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    yield call
    sys.modules.pop('test', None)
    if before:
        sys.modules['test'] = before


@pytest.mark.parametrize('command', nc_cli.COMMANDS)
def test_help(command, nc):
    code, out, _ = nc(command, '--help')
    assert code == 0
    assert out.startswith(f'usage: nc {command} ')


def test_the_list_of_commands(nc):
    code, out, _ = nc()
    assert code == 0 and nc('--help')[1] == out
    listed = [line.split()[0] for line in out.splitlines()[2:]]
    assert listed == list(nc_cli.COMMANDS)
    wanted = {'train', 'test', 'compare', 'convert', 'census', 'doctor'}
    assert wanted <= {*listed}


def test_an_unknown_command_may_be_meant_for_netcat(nc, tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    code, out, err = nc('-z', 'localhost', '80')
    assert (code, out) == (2, '')
    assert err.startswith("error: nc has no command '-z', wanted one of train, test, ")
    assert 'netcat' not in err and err.count('\n') == 1
    (tmp_path / 'nc').write_text('#!/bin/sh\n')
    (tmp_path / 'nc').chmod(0o755)
    # As `python -m nc_plugins`, beside whose Python this command may be installed.
    path = os.pathsep.join([str(Path(sys.executable).parent), str(tmp_path)])
    monkeypatch.setenv('PATH', path)
    assert f'and netcat is {tmp_path / "nc"}' in nc('-z', 'localhost', '80')[2]


def test_the_exit_code_and_the_message_are_those_of_the_program(nc):
    code, _, err = nc('train', 'none.py')
    assert (code, err) == (1, 'error: there is no config none.py\n')


@pytest.mark.slow
def test_python_m_nc_plugins_is_the_same():
    config = ROOT / 'configs/classification/resnet18_nc_1xb2_digits.py'
    for start in (['-m', 'nc_plugins'], ['-m', 'nc_cli'], ['nc_cli.py']):
        command = [sys.executable, *start, 'census', config]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert done.stdout == 'layer census: 20 NC, 20 NCAffine\n'
