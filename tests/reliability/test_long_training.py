"""Memory and open files of a training with varying image sizes."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('mmseg')


@pytest.mark.slow
def test_memory_and_open_files_stay_constant():
    script = Path(__file__).with_name('long_training.py')
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
