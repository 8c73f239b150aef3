"""Tests of the Triton backend: on a GPU if there is one, else in Triton's interpreter."""

import os
import re
import subprocess
import sys
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
TESTS = ('accuracy', 'behaviour', 'extremes', 'paths', 'properties')
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
