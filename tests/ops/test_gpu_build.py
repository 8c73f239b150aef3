"""The Triton backend as compiled for GPUs: kernels build, fit, and are not compiled anew.

No GPU is needed, and nothing runs on one. See gpu_build.py.
"""

import random
from math import prod

import pytest
import torch

from nc_plugins.ops import triton as backend

from .gpu_layers import NETWORKS, Layer

if backend.missing() not in (None, 'no CUDA device'):
    pytest.skip(f'the backend cannot be imported: {backend.missing()}', allow_module_level=True)
if backend.INTERPRETED:
    pytest.skip('Triton interprets its kernels in this process', allow_module_level=True)

from .gpu_build import build, recording, step

FORMATS = [torch.contiguous_format, torch.channels_last]
SHARED = {80: 163, 86: 99, 90: 227, 120: 99}  # KiB that a program may have
SPILLED = 256  # bytes that a thread may spill
STEPS = [(2, True), (32, True), (32, False)]  # batch size, training
# `make test` compiles one kernel for those that differ only in these arguments.
SMALL_CHANGES = ('STRIDE', 'SCALE', 'STORE_Y', 'HAS_BIAS')
ALL = [
    pytest.param(capability, dtype, (), marks=pytest.mark.slow)
    for capability in SHARED
    for dtype in (torch.float32, torch.bfloat16, torch.float16)
]
QUICK = [
    (86, torch.bfloat16, SMALL_CHANGES),
    pytest.param(90, torch.float32, SMALL_CHANGES, marks=pytest.mark.slow),
]


def launches_of(layer, batch, format, dtype=torch.bfloat16, train=True, size=(224, 224)):
    with recording() as (launches, _):
        shape = layer.shape(batch, *size)
        step(shape, layer.outputs, layer.geometry, dtype, format, train)
    return launches


@pytest.mark.parametrize(('capability', 'dtype', 'without'), QUICK + ALL)
def test_every_kernel_builds_and_fits(capability, dtype, without, tmp_path, monkeypatch):
    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))
    kernels = {}
    for layer in {layer for layers in NETWORKS.values() for layer in layers}:
        for format in FORMATS:
            for batch, train in STEPS:
                for launch in launches_of(layer, batch, format, dtype, train):
                    key = launch.compilation.key(without)
                    kernels.setdefault(key, (launch, layer, format))
    wrong = []
    for launch, layer, format in kernels.values():
        found = build(launch, capability)
        narrowest = min(layer.inputs, layer.outputs) // layer.groups
        vector = format == torch.channels_last and narrowest >= 64
        activations = not launch.name.startswith('fold')
        if (
            found.shared > SHARED[capability] * 1024
            or found.spilled > SPILLED
            or (launch.name == 'pointwise_kernel' and not found.tensor_core)
            or (vector and activations and not found.wide_loads)
        ):
            wrong.append(f'{launch.name} of {layer} in {format}: {found}')
    assert not wrong, f'{len(wrong)} of {len(kernels)}:\n' + '\n'.join(wrong)


@pytest.mark.parametrize('format', FORMATS, ids=str)
@pytest.mark.parametrize('steps', [20, pytest.param(200, marks=pytest.mark.slow)])
def test_a_new_image_size_compiles_little(steps, format):
    """A ResNet-50 compiles 90 kernels in the first step and 100 over many sizes, at most."""
    sizes = random.Random(0)
    with recording() as (_, compilations):
        for i in range(steps):
            height, width = (sizes.randint(400, 1400) for _ in range(2))
            for layer in set(NETWORKS['ResNet-50']):
                shape = layer.shape(2, height, width)
                step(shape, layer.outputs, layer.geometry, torch.bfloat16, format)
            if i == 0:
                assert len(compilations) <= 90
    assert len(compilations) <= 100


@pytest.mark.parametrize('format', FORMATS, ids=str)
def test_few_programs_do_not_loop_over_many_channels(format):
    """A small map with many channels would otherwise leave most of the GPU idle."""
    for channels in (512, 1024, 2048):
        layer = Layer(channels, 512, 3, 32)
        for launch in launches_of(layer, 2, format):
            if launch.name == 'pixel_statistics_kernel':
                assert prod(launch.grid) >= 8
                blocks = -(-channels // launch.kwargs['BLOCK_C'])
                assert 2 * blocks <= 8, f'{prod(launch.grid)} programs of {2 * blocks} steps'


@pytest.mark.parametrize('kernel', [1, 3])
def test_launches_of_a_training_step(kernel):
    layer = Layer(64, 64, kernel, 4)
    names = [launch.name for launch in launches_of(layer, 8, torch.channels_last)]
    forward = {
        1: ['fold_kernel', 'pointwise_kernel'],
        3: ['fold_kernel', 'pixel_statistics_kernel', 'epilogue_kernel'],
    }
    backward = [
        'pixel_statistics_kernel', 'fold_kernel', 'epilogue_backward_kernel',
        'statistics_backward_kernel', 'fold_backward_kernel',
    ]  # fmt: skip
    assert names == forward[kernel] + backward
