"""Models of NC convolutions and norm slots compile as one graph and train as they do in eager mode.

mode='reduce-overhead' needs a GPU.
"""

import copy
import shutil

import pytest
import torch
import torch._dynamo
import torch.nn.functional as F
from torch import nn
from torch._dynamo.utils import counters

from nc_plugins.layers import NCAffine, NCConv2d, NCConvTranspose2d, join_affines

X, LABELS = torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2, 1])


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


class Block(nn.Module):
    def __init__(self, channels, backend):
        super().__init__()
        self.conv1 = NCConv2d(channels, channels, 3, padding=1, bias=False, backend=backend)
        self.conv2 = NCConv2d(channels, channels, 1, bias=False, backend=backend)
        self.norm1, self.norm2 = NCAffine(channels), NCAffine(channels)

    def forward(self, x):
        return F.relu(x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)), inplace=True))))


def network(backend, block=Block):
    stem = NCConv2d(3, 6, 3, stride=2, padding=1, bias=False, backend=backend)
    layers = [stem, NCAffine(6), nn.ReLU(inplace=True), block(6, backend)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)).double()


def conv_modules(channels, backend):
    from mmcv.cnn import ConvModule

    nc = {'type': 'NC'}
    options = {'conv_cfg': {**nc, 'backend': backend}, 'norm_cfg': nc}
    return nn.Sequential(
        *(ConvModule(channels, channels, 3, padding=1, **options) for _ in range(2))
    )


def train(model, forward, steps=4):
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(forward(X), LABELS)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize('backend', ['auto', 'aten'])
@pytest.mark.parametrize('block', [Block, conv_modules])
@pytest.mark.parametrize('joined', [True, False])
def test_one_graph_and_the_same_losses(backend, block, joined):
    if block is conv_modules:
        pytest.importorskip('mmcv')
    model = network(backend, block)
    if joined:
        assert join_affines(model) == 1 + 2 * (block is conv_modules)
    other = copy.deepcopy(model)
    compiled = torch.compile(model, backend='aot_eager', fullgraph=True)
    ours, theirs = train(model, compiled), train(other, other)
    assert ours == pytest.approx(theirs, rel=1e-9)
    assert theirs[-1] != pytest.approx(theirs[0], rel=1e-3)
    assert counters['stats']['unique_graphs'] == 1 and not counters['graph_break']


def test_a_model_that_has_trained_before_compiles():
    model = network('aten')
    train(model, model)
    with torch.no_grad():
        expected = model.eval()(X)
    compiled = torch.compile(model, backend='aot_eager', fullgraph=True)
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(compiled(X), expected)
        model[0].weight.mul_(2)
        torch.testing.assert_close(compiled(X), model(X))
    other = copy.deepcopy(model)
    assert train(model, compiled) == pytest.approx(train(other, other), rel=1e-9)


@pytest.mark.slow
def test_sizes_that_change():
    model = nn.Sequential(
        NCConv2d(3, 6, 3, bias=False, backend='aten'), NCAffine(6),
        NCConvTranspose2d(6, 4, 3, stride=2, backend='aten'), NCAffine(4),
    ).double()  # fmt: skip
    compiled = torch.compile(model, backend='aot_eager', fullgraph=True, dynamic=True)
    for size in (8, 9):
        x = torch.randn(2, 3, size, size + 1, dtype=torch.float64)
        torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.skipif(shutil.which('g++') is None, reason='Inductor needs a C++ compiler on CPU')
@pytest.mark.parametrize('backend', [pytest.param('aten', marks=pytest.mark.slow), 'cpu'])
def test_inductor(backend):
    """In channels_last, where what a custom operator promises of its strides is put to the test."""
    layers = (NCConv2d(3, 6, 1, bias=False, backend='aten'), NCAffine(6))
    if backend == 'cpu':
        layers = (NCConv2d(3, 6, 3, padding=1, bias=False, backend='cpu'), NCAffine(6))
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(6 * 64, 3)).double()
    model = model.to(memory_format=torch.channels_last)
    other = copy.deepcopy(model)
    compiled = torch.compile(model, fullgraph=True)
    assert train(model, compiled) == pytest.approx(train(other, other), rel=1e-9)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='CUDA graphs need a GPU')
def test_whole_steps_captured():
    model = network('auto').cuda().float()
    other = copy.deepcopy(model)
    compiled = torch.compile(model, mode='reduce-overhead', fullgraph=True)
    losses = []
    for one, forward in ((model, compiled), (other, other)):
        optimizer = torch.optim.SGD(one.parameters(), 0.1)
        losses.append([])
        for _ in range(6):
            optimizer.zero_grad()
            loss = F.cross_entropy(forward(X.cuda().float()), LABELS.cuda())
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
