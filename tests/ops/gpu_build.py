"""What the Triton backend launches for a layer, and what that compiles to. Needs no GPU.

The functions of the backend run on meta tensors, which have shapes but no values. A launch is
recorded instead of executed. Triton's own compiler, with the ptxas that it brings, then builds the
machine code of a launch for any NVIDIA GPU.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver, jit

from nc_plugins.ops import triton as backend
from nc_plugins.ops.geometry import Geometry

_CUOBJDUMP = Path(triton.__file__).parent / 'backends/nvidia/bin/cuobjdump'


class Gpu:
    """The part of a driver that Triton needs to compile. It launches nothing."""

    def __init__(self, capability: int) -> None:
        self.get_current_target = lambda: GPUTarget('cuda', capability, 32)
        self.get_current_device = lambda: self  # Triton keeps compiled kernels by device
        self.get_current_stream = lambda device: 0


class Compilation(NamedTuple):
    """What Triton compiles once and launches for all arguments with the same properties."""

    kernel: jit.JITFunction
    signature: tuple[str, ...]  # a type per argument; 'constexpr' also for an integer that is 1
    constants: dict[str, object]
    num_warps: int

    @property
    def name(self) -> str:
        return self.kernel.__name__

    def key(self, without: Collection[str] = ()) -> tuple:
        """Equal if only the divisibility of integers, or constants in ``without``, differ."""
        constants = [(name, v) for name, v in self.constants.items() if name not in without]
        return self.name, self.signature, repr(constants), self.num_warps


class Launch(NamedTuple):
    """One launch of a kernel."""

    compilation: Compilation
    args: tuple
    kwargs: dict
    grid: tuple[int, ...]

    @property
    def name(self) -> str:
        return self.compilation.name


class Resources(NamedTuple):
    """What a compiled kernel takes."""

    spilled: int  # bytes per thread
    shared: int  # bytes per program
    tensor_core: bool
    wide_loads: bool  # loads of 128 bits


@contextmanager
def as_if_on(capability: int) -> Iterator[None]:
    """Compile for this compute capability."""
    with mock.patch.object(driver, '_active', Gpu(capability)):
        yield


@contextmanager
def recording() -> Iterator[tuple[list[Launch], list[Compilation]]]:
    """Record what the backend launches, and what Triton compiles for it the first time."""
    launches, compilations = [], []
    run = jit.JITFunction.run

    def record(kernel, *args, grid, warmup, **kwargs):
        compilation = run(kernel, *args, grid=grid, warmup=True, **kwargs)
        launches.append(Launch(compilation, args, kwargs, grid))

    def do_compile(kernel, key, signature, device, constants, options, attributes, warmup):
        kinds = tuple('int' if kind in ('i32', 'i64') else kind for kind in signature.values())
        declared = {p.name: constants[i,] for i, p in enumerate(kernel.params) if p.is_constexpr}
        compilation = Compilation(kernel, kinds, declared, options.num_warps)
        kernel.device_caches[device][0][key] = compilation
        compilations.append(compilation)
        return compilation

    with (
        as_if_on(80),
        mock.patch.object(jit.JITFunction, 'run', record),
        mock.patch.object(jit.JITFunction, '_do_compile', do_compile),
    ):
        yield launches, compilations


def step(
    shape: tuple[int, ...],
    outputs: int,
    geometry: Geometry,
    dtype: torch.dtype,
    format: torch.memory_format,
    train: bool = True,
) -> None:
    """One forward pass (and backward pass) of a layer with gain and bias, on meta tensors.

    Parameters are float32, as under autocast.
    """
    packed, channels = backend._pack(geometry), shape[1] // geometry.groups
    x = torch.empty(shape, dtype=dtype, device='meta').to(memory_format=format)
    weight = torch.empty(outputs, channels, *geometry.kernel, device='meta')
    weight = weight.to(memory_format=format)
    bias, gain = torch.empty(outputs, device='meta'), torch.empty(outputs, device='meta')
    out, *saved = backend._forward_impl(x, weight, bias, gain, packed, 1e-5, dtype, train)
    if train:
        grad = torch.empty_like(out)
        backend._backward_impl(grad, x, weight, gain, *saved, packed, dtype, True, True)


def build(launch: Launch, capability: int) -> Resources:
    """Compile a launch down to machine code and read the resources that it takes."""
    with as_if_on(capability):
        kernel = launch.compilation.kernel
        binary = kernel.warmup(*launch.args, grid=launch.grid, **launch.kwargs)
    with tempfile.NamedTemporaryFile(suffix='.cubin') as file:
        file.write(binary.asm['cubin'])
        file.flush()
        command = [_CUOBJDUMP, '-res-usage', file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    spilled = re.search(r'STACK:(\d+)', usage)
    ptx = binary.asm['ptx']
    products = re.search(r'^\s*(mma\.sync|wgmma\.mma_async|tcgen05\.mma)', ptx, re.MULTILINE)
    return Resources(
        int(spilled.group(1)), binary.metadata.shared, products is not None,
        re.search(r'ld\.global\S*\.v4\.b32|cp\.async\S*.*, (0x10|16),', ptx) is not None,
    )  # fmt: skip
