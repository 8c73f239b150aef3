"""Runs the tests of the Triton backend (triton_cases.py), natively on a GPU, else interpreted."""

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from nc_plugins import ops
from nc_plugins.ops import triton as backend

CASES = Path(__file__).with_name('triton_cases.py')


def test_in_a_process_of_their_own():
    """What Triton interprets is settled when it is first imported, hence the process."""
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUBLAS_WORKSPACE_CONFIG': ':4096:8'}
    environment.pop('TRITON_INTERPRET', None)
    if not torch.cuda.is_available():
        environment['TRITON_INTERPRET'] = '1'
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', str(CASES)]
    done = subprocess.run(
        command, cwd=CASES.parents[2], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = done.stdout.strip().splitlines()[-1]
    assert re.match(r'\d+ passed(, \d+ warnings?)? in ', summary), summary


class Gpu:
    """As much of a driver as Triton needs in order to compile."""

    def __init__(self, capability):
        from triton.backends.compiler import GPUTarget

        self.get_current_target = lambda: GPUTarget('cuda', capability, 32)
        self.get_current_device = lambda: capability  # kernels are kept by device
        self.get_current_stream = lambda device: 0


@pytest.mark.parametrize('capability', [80, 90])
def test_kernels_compile_for_a_gpu(capability, monkeypatch, tmp_path):
    """What the interpreter accepts, the compiler might not; no GPU is needed to ask it."""
    from triton.runtime import driver, jit

    compiled = {}

    def launch(kernel, *arguments, grid, **options):
        binary = kernel.run(*arguments, grid=grid, warmup=True, **options)
        compiled.setdefault(kernel.__name__, []).append(binary)

    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))
    monkeypatch.setattr(backend, 'INTERPRETED', True)  # which lets CPU tensors in
    monkeypatch.setattr(
        jit.JITFunction, '__getitem__', lambda kernel, grid: partial(launch, kernel, grid=grid)
    )
    monkeypatch.setattr(driver, '_active', Gpu(capability))
    for dtype, size in ((torch.bfloat16, 3), (torch.bfloat16, 1), (torch.float32, 1)):
        x = torch.randn(2, 64, 9, 9).to(dtype, memory_format=torch.channels_last)
        weight, vectors = (
            torch.randn(96, 64, size, size, dtype=dtype),
            torch.ones(2, 96).to(dtype),
        )
        leaves = [t.requires_grad_() for t in (x, weight, *vectors)]
        out = ops.nc_conv2d(*leaves[:3], gain=leaves[3], backend='triton')
        torch.autograd.grad(out, leaves, torch.ones_like(out))
    assert compiled.keys() == {
        'pixel_statistics_kernel', 'kernel_kernel', 'epilogue_kernel', 'pointwise_kernel',
        'scale_backward_kernel', 'input_backward_kernel', 'kernel_backward_kernel',
    }  # fmt: skip
    shared = [binary.metadata.shared for found in compiled.values() for binary in found]
    assert max(shared) <= 99 * 1024  # what the smallest of these GPUs give a program


@pytest.mark.skipif(backend.missing() is None, reason='the backend runs here')
def test_without_a_device_it_says_so():
    assert 'triton' not in ops.available_backends()
    x, weight = torch.zeros(2, 4, 6, 6), torch.zeros(8, 4, 3, 3)
    with pytest.raises(ValueError, match=r"'triton' cannot run here: (no CUDA|.* installed)"):
        ops.nc_conv2d(x, weight, backend='triton')
