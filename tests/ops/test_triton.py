"""Tests of the Triton backend: on a GPU if there is one, else in Triton's interpreter."""

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from nc_plugins import ops
from nc_plugins.ops import triton as backend
from nc_plugins.ops.arguments import make_geometry

pytestmark = pytest.mark.skipif(
    torch.__version__ < backend._MIN_TORCH, reason='the backend needs a newer torch and Triton'
)

ROOT = Path(__file__).parents[2]
TESTS = ('accuracy', 'behaviour', 'extremes', 'properties')
FILES = [f'tests/ops/triton_{name}.py' for name in TESTS]


@pytest.fixture(autouse=True)
def availability_is_asked_anew():
    """The backend asks once per process whether there is a GPU. These tests replace the answer."""
    backend.missing.cache_clear()
    yield
    backend.missing.cache_clear()


@pytest.mark.slow
def test_kernels_in_a_process_of_their_own():
    """Triton decides whether to interpret when it is first imported, so it needs a new process."""
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUBLAS_WORKSPACE_CONFIG': ':4096:8'}
    environment.pop('TRITON_INTERPRET', None)
    if not torch.cuda.is_available():
        environment['TRITON_INTERPRET'] = '1'
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', *FILES]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = done.stdout.strip().splitlines()[-1]
    assert re.match(r'\d+ passed(, \d+ warnings?)? in ', summary), summary


class Gpu:
    """The part of a driver that Triton needs to compile without a GPU."""

    def __init__(self, capability):
        from triton.backends.compiler import GPUTarget

        self.get_current_target = lambda: GPUTarget('cuda', capability, 32)
        self.get_current_device = lambda: capability  # Triton caches kernels by device
        self.get_current_stream = lambda device: 0


@pytest.mark.parametrize('capability', [80, 90])
def test_kernels_compile_for_a_gpu(capability, monkeypatch, tmp_path):
    """The compiler may reject what the interpreter accepts. No GPU is needed to compile."""
    from triton.runtime import driver, jit

    from nc_plugins.ops import triton_launch

    compiled = {}

    def launch(kernel, *arguments, grid, **options):
        binary = kernel.run(*arguments, grid=grid, warmup=True, **options)
        compiled.setdefault(kernel.__name__, []).append(binary)

    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))
    monkeypatch.setattr(backend, 'INTERPRETED', True)  # accepts CPU tensors
    monkeypatch.setattr(
        jit.JITFunction, '__getitem__', lambda kernel, grid: partial(launch, kernel, grid=grid)
    )
    monkeypatch.setattr(driver, '_active', Gpu(capability))
    # Programs loop over several tiles, as for large images. The compiler then buffers more tiles.
    monkeypatch.setattr(triton_launch, '_SPLITS', 1)
    channels_last, contiguous = torch.channels_last, torch.contiguous_format
    for dtype, size, format in (
        (torch.bfloat16, 3, channels_last),
        (torch.bfloat16, 1, channels_last),
        (torch.float16, 2, channels_last),
        (torch.float32, 1, channels_last),
        (torch.float32, 7, contiguous),
    ):
        x = torch.randn(2, 64, 9, 9).to(dtype, memory_format=format)
        weight = torch.randn(96, 64, size, size, dtype=dtype)
        bias, gain = torch.ones(2, 96, dtype=dtype)
        leaves = [t.requires_grad_() for t in (x, weight, bias, gain)]
        out = ops.nc_conv2d(*leaves[:3], gain=leaves[3], backend='triton')
        torch.autograd.grad(out, leaves, torch.ones_like(out))
    assert compiled.keys() == {
        'pixel_statistics_kernel', 'fold_kernel', 'epilogue_kernel', 'pointwise_kernel',
        'epilogue_backward_kernel', 'statistics_backward_kernel', 'fold_backward_kernel',
    }  # fmt: skip
    shared = [binary.metadata.shared for found in compiled.values() for binary in found]
    assert max(shared) <= 99 * 1024  # per program on the GPUs with the least


@pytest.mark.skipif(backend.missing() is None, reason='the backend runs here')
def test_error_without_a_device():
    assert 'triton' not in ops.available_backends()
    x, weight = torch.zeros(2, 4, 6, 6), torch.zeros(8, 4, 3, 3)
    with pytest.raises(ValueError, match=r"'triton' cannot run here: (no CUDA|.* installed)"):
        ops.nc_conv2d(x, weight, backend='triton')


@pytest.mark.parametrize(
    ('major', 'hip', 'reason'), [(8, None, None), (7, None, 'below 8.0'), (9, '6.4', 'AMD')]
)
def test_supported_gpus(major, hip, reason, monkeypatch):
    monkeypatch.setattr(backend, 'INTERPRETED', False)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(
        torch.cuda, 'get_device_properties', lambda device: SimpleNamespace(major=major)
    )
    monkeypatch.setattr(torch.version, 'hip', hip)
    x, weight = torch.zeros(2, 4, 9, 9), torch.zeros(8, 4, 3, 3)
    geometry = make_geometry('nc_conv2d', 2, x.shape, weight.shape, None, None, 1, 0, 1, 1)
    on_gpu = SimpleNamespace(
        shape=x.shape, dtype=x.dtype, is_cuda=True, device=torch.device('cuda', 0)
    )
    result = backend.missing() or backend.refuses(on_gpu, weight, geometry)
    assert result is None if reason is None else reason in result
