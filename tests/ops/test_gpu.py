"""The operator on CUDA devices: streams, graph capture, a second device."""

import pytest
import torch

from nc_plugins import ops

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')


def layer(kernel, device='cuda'):
    x = torch.randn(4, 16, 12, 12, device=device, requires_grad=True)
    weight = torch.randn(24, 16, kernel, kernel, device=device, requires_grad=True)
    bias, gain = (torch.randn(24, device=device, requires_grad=True) for _ in range(2))
    return x, weight, bias, gain


def step(leaves, backend='auto'):
    x, weight, bias, gain = leaves
    out = ops.nc_conv2d(x, weight, bias, gain=gain, backend=backend)
    return out, *torch.autograd.grad(out, leaves, torch.ones_like(out).cumsum(1))


def check(results, leaves):
    for result, wanted in zip(results, step(leaves, 'aten'), strict=True):
        torch.testing.assert_close(result, wanted, rtol=0.01, atol=0.01 * float(wanted.abs().max()))


@pytest.mark.parametrize('kernel', [1, 3])
def test_a_stream_other_than_the_default(kernel):
    leaves = layer(kernel)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        results = step(leaves)
    torch.cuda.current_stream().wait_stream(stream)
    check(results, leaves)


@pytest.mark.parametrize('kernel', [1, 3])
def test_a_training_step_is_captured_in_a_graph(kernel):
    leaves = layer(kernel)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # compiles the kernels
        for _ in range(3):
            step(leaves)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = step(leaves)
    with torch.no_grad():
        leaves[0].normal_()
    graph.replay()
    check(results, leaves)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason='needs two CUDA devices')
@pytest.mark.parametrize('kernel', [1, 3])
def test_a_second_device(kernel):
    leaves = layer(kernel, 'cuda:1')
    assert torch.cuda.current_device() == 0
    check(step(leaves), leaves)
