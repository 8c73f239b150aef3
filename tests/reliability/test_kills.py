"""A few kills for each task; kills.py makes a hundred."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('mmdet')
SCRIPT = Path(__file__).with_name('kills.py')


@pytest.mark.slow
@pytest.mark.parametrize('task', ['classification', 'deeplab', 'mask_rcnn', 'cyclegan'])
def test_a_killed_training_ends_with_the_bits_of_an_uninterrupted_one(task, tmp_path):
    command = [sys.executable, SCRIPT, '--kills', '4', '--tasks', task, '--folder', tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "'kills': 4" in done.stdout
