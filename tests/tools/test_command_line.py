"""The shared part of the tools: missing packages, errors, exit codes and signals."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run_tool

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


@pytest.mark.parametrize(
    ('name', 'code'),
    [
        *[(name, 1) for name in ('train', 'test', 'convert', 'census')],
        *[('make_digits', 1), ('convert_tiny_imagenet', 1), ('compare', 2)],
    ],
)
def test_a_missing_package_is_one_sentence(name, code, tmp_path):
    for package in ('torch', 'mmengine', 'filelock'):
        text = f'raise ModuleNotFoundError("No module named {package!r}")'
        (tmp_path / f'{package}.py').write_text(text)
    path = os.pathsep.join([str(tmp_path), str(TOOLS.parent)])
    command = [sys.executable, str(TOOLS / f'{name}.py'), '--help']
    env = {**os.environ, 'PYTHONPATH': path}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (code, '')
    assert done.stderr.startswith("error: No module named '") and done.stderr.count('\n') == 1
    assert '`make setup`' in done.stderr


def raises(error):
    def main():
        raise error

    return main


def test_exit_codes(capsys):
    assert run_tool(lambda: None, ValueError) == 0
    assert run_tool(lambda: 3, ValueError) == 3
    assert capsys.readouterr().err == ''
    assert run_tool(raises(ValueError('two\n  lines')), (OSError, ValueError), exit_code=2) == 2
    assert capsys.readouterr().err == 'error: two lines\n'
    assert run_tool(raises(KeyboardInterrupt()), ValueError, interrupted='nothing written') == 130
    assert capsys.readouterr().err == 'nothing written\n'
    with pytest.raises(KeyError, match='bug'):
        run_tool(raises(KeyError('bug')), ValueError)


def test_sigterm_cleans_up_and_the_handler_is_restored():
    cleaned, before = [], signal.getsignal(signal.SIGTERM)

    def main():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            cleaned.append(True)

    with pytest.raises(SystemExit) as stop:
        run_tool(main, ValueError)
    assert (stop.value.code, cleaned) == (143, [True])
    assert signal.getsignal(signal.SIGTERM) is before
