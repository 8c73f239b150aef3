"""Convolutions, fixtures and helpers for the tests of the Triton backend.

test_triton.py runs the tests (triton_accuracy.py and triton_behaviour.py) in a process of their
own: on a CUDA device if there is one, else in Triton's interpreter. The backend has no float64. So
the tests compare float32 and half precision with the definition in float64, by the tolerances of
test_accuracy.py.
"""

import pytest
import torch

from nc_plugins import ops
from nc_plugins.ops import triton as backend

from .cases import CASES, NAMES, Case, run

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
FORMATS = [torch.contiguous_format, torch.channels_last]
HALF = [torch.bfloat16, torch.float16]
PLANE = [case for case in CASES if case.operator == 'nc_conv2d']
# As in test_accuracy.py, with fewer filters: the interpreter takes milliseconds per program.
WIDE = [
    Case('nc_conv2d', (64, 8), (7, 7), (1, 1), {}),
    Case('nc_conv2d', (32, 8), (8, 8), (3, 3), {'padding': 1}),
    Case('nc_conv2d', (3, 8), (16, 16), (7, 7), {'stride': 2, 'padding': 3}),
    Case('nc_conv2d', (32, 8), (8, 8), (3, 3), {'padding': 2, 'dilation': 2, 'groups': 2}),
]
# Kernels need several blocks of input channels or of output channels here, in each memory format.
BLOCKS = [
    Case('nc_conv2d', (70, 66), (3, 4), (1, 1), {}),
    Case('nc_conv2d', (130, 10), (5, 4), (1, 1), {'stride': (2, 1)}),
    Case('nc_conv2d', (40, 36), (5, 4), (3, 2), {'padding': 1}),
    Case('nc_conv2d', (130, 3), (2, 3), (2, 2), {}),
    Case('nc_conv2d', (1030, 3), (2, 3), (1, 1), {'padding': (0, 1)}),
    Case('nc_conv2d', (3, 6), (12, 13), (3, 3), {'padding': 1, 'stride': 2}),
    Case('nc_conv2d', (40, 5), (1, 1), (1, 1), {}),
]


@pytest.fixture(autouse=True)
def full_precision():
    """Turn TF32 off, because the tolerances for float32 expect float32 products."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(autouse=True)
def round_as_a_gpu(monkeypatch):
    """Round float32 to bfloat16. Triton 3.6's interpreter truncates, with twice the error."""
    if backend.INTERPRETED:
        from triton.runtime import interpreter

        truncate = interpreter.InterpreterBuilder.cast_impl

        def cast(builder, source, wanted):
            if (source.dtype.scalar.name, wanted.scalar.name) != ('fp32', 'bf16'):
                return truncate(builder, source, wanted)
            rounded = torch.from_numpy(source.data.copy()).bfloat16().view(torch.uint16)
            return interpreter.TensorHandle(rounded.numpy(), wanted.scalar)

        monkeypatch.setattr(interpreter.InterpreterBuilder, 'cast_impl', cast)


def cotangent(shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def out_shape(case, given):
    shaped = [t.to('meta') for t in given]
    return ops.nc_conv2d(*shaped[:2], **case.options, backend='aten').shape


def actual(case, given, format=torch.channels_last, **options):
    """Output and gradients of the Triton backend, copied to the CPU."""
    x, *rest = (t.to(DEVICE) for t in given)
    back = cotangent(out_shape(case, given)).to(DEVICE)
    results = run('triton', case, (x.contiguous(memory_format=format), *rest), back, **options)
    return [result.cpu() for result in results]


def check(case, given, factor, floor, format=torch.channels_last):
    """Compare with float64. The error may be ``factor`` times that of the definition in the dtype.

    ``floor`` is an additional error, relative to the largest entry of the result.
    """
    truth = run('reference', case, [t.double() for t in given])
    definition = run('reference', case, given)
    results = actual(case, given, format)
    for name, t, d, a in zip(NAMES, truth, definition, results, strict=True):
        assert a.dtype == given[0].dtype
        error, yardstick = ((r - t).abs().max() for r in (a, d))
        assert error <= factor * yardstick + floor * t.abs().max(), name
