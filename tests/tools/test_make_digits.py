"""tools/make_digits.py: exit codes, messages, and no remains after an error."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import make_digits
import pytest

REPO = Path(__file__).resolve().parents[2]


def command(*args):
    return [sys.executable, str(REPO / 'tools' / 'make_digits.py'), *map(str, args)]


def environment(*folders):
    known = [str(REPO), *filter(None, [os.environ.get('PYTHONPATH')])]
    return {**os.environ, 'PYTHONPATH': os.pathsep.join([*map(str, folders), *known])}


def run(*args, env=None):
    return subprocess.run(
        command(*args), env=env or environment(), capture_output=True, text=True, timeout=300
    )


def test_it_writes_once_then_skips_then_rejects_other_parameters(tmp_path, monkeypatch, capsys):
    dest = tmp_path / 'digits'

    def call(*options):
        scenes = ['--scenes-train', '3', '--scenes-val', '2']
        monkeypatch.setattr(sys, 'argv', ['make_digits.py', str(dest), *scenes, *options])
        return make_digits.main(), *capsys.readouterr()

    code, said, errors = call()
    assert (code, errors) == (0, '')
    for word in ('folder', 'coco, voc 3 train scenes', 'unpaired', 'written in'):
        assert word in said
    layouts = ['coco', 'folder', 'manifest.json', 'unpaired', 'voc']
    assert sorted(p.name for p in dest.iterdir()) == layouts
    times = {p: p.stat().st_mtime_ns for p in dest.rglob('*')}
    code, said, errors = call()
    assert (code, errors) == (0, '')
    assert 'complete already' in said
    code, _, errors = call('--seed', '7')
    assert code == 1
    assert errors.startswith('error: ') and errors.count('\n') == 1
    assert 'seed=0, but now requested with seed=7' in errors
    assert {p: p.stat().st_mtime_ns for p in dest.rglob('*')} == times


def test_it_without_scikit_learn(tmp_path):
    fake = tmp_path / 'fake' / 'sklearn'
    fake.mkdir(parents=True)
    (fake / '__init__.py').write_text("raise ImportError('not here')")
    result = run(tmp_path / 'digits', env=environment(fake.parent))
    assert result.returncode == 1
    assert 'pip install scikit-learn' in result.stderr and result.stderr.count('\n') == 1
    assert [p.name for p in tmp_path.iterdir()] == ['fake']


@pytest.mark.slow
@pytest.mark.parametrize('number, code', [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_leaves_nothing_when_interrupted(tmp_path, number, code):
    process = subprocess.Popen(
        command(tmp_path / 'data' / 'digits', '--scenes-train', '100000'),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Background jobs of a shell script ignore SIGINT, and their children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdout.readline().startswith('folder')
        assert any((tmp_path / 'data').iterdir())
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code
    assert 'Traceback' not in stderr
    assert list(tmp_path.iterdir()) == []
