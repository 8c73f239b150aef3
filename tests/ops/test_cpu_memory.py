"""The C++ backend gives the memory of a large step back."""

import subprocess
import sys
from pathlib import Path

import pytest

from nc_plugins.ops import cpu

ROOT = Path(__file__).parents[2]
# The kernels keep planes of 96 channels of the padded input for each thread: 100 MiB here.
PROGRAM = """
import psutil
import torch
from nc_plugins import ops

torch.set_num_threads(2)

def step(size):
    x = torch.ones(1, 96, size, size, requires_grad=True)
    weight = torch.ones(2, 96, 1, 1, requires_grad=True)
    ops.nc_conv2d(x, weight, padding=1, backend='cpu').sum().backward()

def resident():
    return psutil.Process().memory_info().rss / 2**20

step(16)
before = resident()
step(512)
step(16)
print(resident() - before)
"""


@pytest.mark.skipif(
    cpu.missing() is not None, reason='the C++ extension is not built (test_cpu.py fails then)'
)
def test_a_large_step_leaves_no_memory_behind():
    command = [sys.executable, '-W', 'ignore', '-c', PROGRAM]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 50  # MiB; 16 stay for scratch memory, and 16 for each thread
