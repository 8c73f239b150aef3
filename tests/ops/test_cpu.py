"""The C++ backend: every instruction set, layout and way through the kernels, any thread count."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nc_plugins import ops
from nc_plugins.ops import cpu

from .cases import NAMES, Case, run, tensors
from .test_accuracy import FLOOR, TOLERANCE

# The kernels choose their way by size: what is a whole panel for one instruction set is part of one
# for another, and a tile sums at most 256 products at a time.
WAYS = [
    Case('nc_conv2d', (20, 12), (26, 24), (1, 1), {}),  # dense, many panels
    Case('nc_conv2d', (300, 9), (5, 7), (1, 1), {}),  # dense, few panels, two sums a tile
    Case('nc_conv2d', (8, 300), (5, 7), (1, 1), {}),  # the same backward
    Case('nc_conv2d', (6, 10), (26, 24), (3, 3), {'padding': 1}),  # many panels, rows cross them
    Case('nc_conv2d', (6, 10), (30, 50), (3, 3), {'padding': 1, 'stride': 2, 'groups': 2}),
    Case('nc_conv2d', (40, 21), (7, 7), (3, 3), {'padding': 1}),  # small maps, strips together
    Case('nc_conv2d', (40, 21), (4, 4), (3, 3), {'padding': 1}),  # several rows in one vector
    Case('nc_conv2d', (3, 9), (33, 31), (7, 7), {'padding': 3, 'stride': 2}),
    Case('nc_conv2d', (8, 6), (20, 30), (1, 1), {'stride': 2, 'padding': 1}),
    Case('nc_conv2d', (5, 5), (13, 40), (3, 5), {'padding': (1, 4), 'dilation': (1, 2)}),
    Case('nc_conv2d', (6, 6), (24, 26), (3, 3), {'padding': 1, 'groups': 6}),  # depthwise
    Case('nc_conv2d', (2, 3), (3, 2), (2, 2), {'padding': 3, 'stride': 4}),  # windows of padding
    Case('nc_conv3d', (4, 6), (9, 10, 11), (3, 2, 3), {'padding': 1, 'stride': (1, 2, 1)}),
    Case('nc_conv1d', (4, 6), (700,), (5,), {'padding': 2}),
]
SETS = cpu._C.instruction_sets() if cpu.missing() is None else []


def test_it_is_built():
    """Else this file would test nothing: `make setup` builds it."""
    assert cpu.missing() is None and 'baseline' in SETS


@pytest.fixture(params=SETS)
def instruction_set(request):
    cpu._C.select(request.param)
    yield request.param
    cpu._C.select(SETS[0])


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def arrange(given, layout):
    return [t.contiguous(memory_format=layout) if t.dim() == 4 else t for t in given]


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('case', WAYS, ids=str)
def test_equals_the_definition(instruction_set, case, layout):
    given = tensors(case)
    truth = run('reference', case, given)
    for name, t, a in zip(NAMES, truth, run('cpu', case, arrange(given, layout)), strict=True):
        assert (a - t).abs().max() <= 1e-11 * t.abs().max().clamp(min=1), name
    single = [t.float() for t in given]
    definition = run('reference', case, single)
    actual = run('cpu', case, arrange(single, layout))
    for name, t, d, a in zip(NAMES, truth, definition, actual, strict=True):
        error, yardstick = ((r - t).abs().max() for r in (a, d))
        assert error <= TOLERANCE[1.0] * yardstick + FLOOR * t.abs().max(), name


@pytest.mark.parametrize('case', WAYS, ids=str)
def test_the_same_bits_on_any_number_of_threads(case, threads):
    given = [t.float() for t in tensors(case)]
    results = []
    for count in (1, 2, 3, 2):
        threads(count)
        results.append(run('cpu', case, given))
    for others in zip(*results, strict=True):
        assert all(torch.equal(others[0], other) for other in others[1:])


def test_a_large_mean_costs_no_digits():
    """A mean rounded to float32 is off by the same for all values of a patch, and a sum of 2304
    products does not average that out: the definition in float32 loses a digit a decade here."""
    case = Case('nc_conv2d', (256, 8), (7, 7), (3, 3), {'padding': 1})
    x, *rest = tensors(case, mean=0.0)
    for mean in (0.0, 100.0, 1000.0):
        given = [(x + mean).float().double(), *rest]
        truth = run('reference', case, given)
        actual = run('cpu', case, [t.float() for t in given])
        for name, t, a in zip(NAMES, truth, actual, strict=True):
            assert (a - t).abs().max() <= 2e-6 * t.abs().max(), f'{name} at mean {mean}'


def test_keeps_no_output_for_backward():
    x, weight, bias, gain = (t.float().requires_grad_() for t in tensors(WAYS[3]))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda t: t):
        ops.nc_conv2d(x, weight, bias, gain=gain, padding=1, backend='cpu')
    maps = 3 * 2 * 26 * 24  # mean in two parts, and rstd
    assert sum(t.numel() for t in kept) == sum(t.numel() for t in (x, weight, gain)) + maps


def test_flops_are_those_of_the_convolution():
    x, weight, *_ = (t.float().requires_grad_() for t in tensors(WAYS[3]))
    options = WAYS[3].options
    counts = []
    for operator in (ops.nc_conv2d, torch.nn.functional.conv2d):
        with FlopCounterMode(display=False) as counter:
            operator(x, weight, **options).sum().backward()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_an_unknown_instruction_set_is_refused():
    with pytest.raises(ValueError, match="instruction set is 'mmx', wanted one that runs here"):
        cpu._C.select('mmx')


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
def test_what_is_promised_to_the_compiler_is_what_comes(layout):
    """Strides above all: Inductor takes them as given, and other checks do not look."""
    x, weight, bias, gain = arrange([t.float() for t in tensors(WAYS[5])], layout)
    steps = ([1, 1], [1, 1, 1, 1], [1, 1], 1)
    forward = torch.ops.nc_plugins.nc_conv_forward
    tests = ('test_schema', 'test_faketensor')
    arguments = (x, weight, bias, gain, *steps, 1e-5, True, True)
    torch.library.opcheck(forward, arguments, test_utils=tests)
    out, *statistics = forward(*arguments)
    for needs in (
        (True, True, True, True),
        (False, True, False, False),
        (True, False, True, False),
    ):
        given = (torch.randn_like(out), x, weight, gain, *statistics, *steps)
        backward = torch.ops.nc_plugins.nc_conv_backward
        torch.library.opcheck(backward, (*given, True, True, *needs), test_utils=tests)


def test_a_trace_holds_stock_operators():
    x, weight, *_ = (t.float() for t in tensors(WAYS[5]))
    traced = torch.jit.trace(lambda x: ops.nc_conv2d(x, weight, backend='cpu'), x)
    kinds = {node.kind() for node in traced.graph.nodes()}
    assert 'aten::_convolution' in kinds
    assert all(kind.startswith(('aten::', 'prim::')) for kind in kinds)
