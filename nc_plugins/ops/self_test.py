"""A short test of a backend on one device, before ``backend='auto'`` first uses it there."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from torch import Tensor

from . import aten
from .autograd import BACKENDS
from .backend import Needs, Plan
from .geometry import Geometry

# Of the norm of a result. It tells a wrong kernel from rounding, in any dtype.
_TOLERANCE = 0.03


@torch.compiler.assume_constant_result  # torch.compile calls it instead of tracing into it
def failure(name: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why a backend does not compute what 'aten' computes; None if it does.

    A kernel that is compiled at run time may fail to compile or launch, for example without a C
    compiler or with a driver that does not fit. The test runs once per device and dtype, and warns
    if it fails. It takes a few seconds where kernels must be compiled.
    """
    return _failure(name, device, dtype)


@cache
def _failure(name: str, device: torch.device, dtype: torch.dtype) -> str | None:
    # A new thread has none of the caller's modes: autocast, torch.func, fake tensors, streams.
    with ThreadPoolExecutor(1) as thread:
        reason = thread.submit(_compare, name, device, dtype).result()
    if reason is not None:
        warnings.warn(
            f"backend {name!r} failed its test on {device} in {dtype}, so 'auto' does not use it: "
            f'{reason}',
            stacklevel=2,
        )
    return reason


def _compare(name: str, device: torch.device, dtype: torch.dtype) -> str | None:
    try:
        with torch.no_grad(), torch.cuda.device_of(torch.empty(0, device=device)):
            for kernel in (1, 3):
                results = _step(BACKENDS[name], kernel, device, dtype)
                expected = _step(aten, kernel, device, dtype)
                for result, wanted in zip(results, expected, strict=True):
                    error = (result.float() - wanted.float()).norm()
                    if not error <= _TOLERANCE * wanted.float().norm():  # also if it is NaN
                        return f'wrong values for a {kernel}x{kernel} kernel'
    except Exception as error:  # whatever a compiler or a driver may raise
        return f'{type(error).__name__}: {error}'
    return None


def _step(backend, kernel: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Output and gradients of a layer with all its parameters."""
    pads = ((kernel // 2,) * 2,) * 2
    plan = Plan(Geometry((kernel,) * 2, (1, 1), pads, (1, 1), 1), 1e-5, True, True, dtype)
    x, grad = _values((2, 64, 8, 8), device).to(dtype), _values((2, 32, 8, 8), device).to(dtype)
    weight, bias = _values((32, 64, kernel, kernel), device), _values((32,), device)
    gain = 1 + bias / 2
    out, *saved = backend.forward(x, weight, bias, gain, plan, save=True)
    needs = Needs(input=True, weight=True, bias=True, gain=True)
    return out, *backend.backward(grad, x, weight, gain, tuple(saved), needs, plan)


def _values(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Values without a pattern, which do not depend on the state of a random generator."""
    generator = torch.Generator().manual_seed(len(shape) + shape[0])
    return torch.randn(shape, generator=generator).to(device)
