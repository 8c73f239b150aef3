"""Wrong configs end in a sentence: random edits, any number of them with config_fuzz.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

for package in ('mmdet', 'mmpretrain', 'mmseg', 'mmcv._ext', 'sklearn'):
    pytest.importorskip(package)
if not hasattr(os, 'fork'):
    pytest.skip('needs fork', allow_module_level=True)

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_random_edits():
    options = ['--seed', '0', '--edits', '400']
    command = [sys.executable, str(ROOT / 'tests/reliability/config_fuzz.py'), *options]
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ' 0 traceback, 0 hang, 0 crash, 0 leftovers' in done.stdout.splitlines()[-1]
