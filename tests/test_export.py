"""nc_plugins.export: the file computes what the model computes, for other sizes of images too."""

import sys

import pytest
import torch
from torch import nn

import nc_plugins
from nc_plugins.layers import (
    NCAffine,
    NCConv1d,
    NCConv2d,
    NCConv3d,
    NCConvTranspose2d,
    deploy,
)
from nc_plugins.layers.stock import StockConv, use_stock_operators
from nc_plugins.ops import reference

from .layers.models import NormFirst, pair, randomize

SHAPES = ((3, 4, 13, 14), (1, 4, 16, 11))
LAYERS = {
    'pair': (NCConv2d, {}),
    'bias, stride': (NCConv2d, {'bias': True, 'stride': 2, 'padding': 1}),
    'dilation': (NCConv2d, {'dilation': (1, 2), 'padding': 'same'}),
    'even same': (NCConv2d, {'kernel_size': (2, 4), 'padding': 'same'}),
    'large kernel': (
        NCConv2d,
        {'kernel_size': (5, 4), 'stride': (2, 3), 'padding': (2, 1), 'dilation': (2, 1)},
    ),
    'weight standardised': (NCConv2d, {'weight_standardize': True}),
    'reflect': (NCConv2d, {'padding': 1, 'padding_mode': 'reflect'}),
    'pointwise': (NCConv2d, {'kernel_size': 1, 'stride': 2}),
    '1d': (NCConv1d, {'bias': True}),
    '3d': (NCConv3d, {'padding': 1}),
    # These keep the operators of ops/aten.py.
    'groups': (NCConv2d, {'groups': 2}),
    'not centred': (NCConv2d, {'center': False}),
    'not scaled': (NCConv2d, {'scale': False}),
    'transposed': (NCConvTranspose2d, {'stride': 2, 'bias': True}),
}
GENERAL = ('groups', 'not centred', 'not scaled', 'transposed')


def stock(model):
    model = deploy(model)
    use_stock_operators(model)
    return model


def load(file):
    """The ONNX file in onnxruntime as a function on tensors, and its nodes."""
    onnx, onnxruntime = pytest.importorskip('onnx'), pytest.importorskip('onnxruntime')
    session = onnxruntime.InferenceSession(file, providers=['CPUExecutionProvider'])
    name = session.get_inputs()[0].name
    nodes = [node.op_type for node in onnx.load(file).graph.node]
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0]), nodes


def error(out, truth):
    return ((out.double() - truth).abs().max() / truth.abs().max()).item()


@pytest.mark.parametrize('kind', LAYERS)
def test_stock_operators_compute_the_layer(kind):
    layer, options = LAYERS[kind]
    model = pair(layer, **options)
    axes = {NCConv1d: 1, NCConv3d: 3}.get(layer, 2)
    x = torch.randn(2, 4, *(13, 14, 5)[:axes], dtype=torch.float64) + 1
    ours = stock(model)
    assert isinstance(ours[0], StockConv) == (kind not in GENERAL)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), model(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(('channels', 'kernel'), [(3, 7), (64, 3), (256, 3), (64, 1)])
@pytest.mark.parametrize('mean', [100, 1000])
def test_a_large_mean_costs_no_more_digits_than_in_the_definition(channels, kernel, mean):
    layer = NCConv2d(channels, 32, kernel, bias=False)
    x, weight = torch.randn(2, channels, 12, 12) + mean, layer.weight.detach()
    truth = reference.nc_conv2d(x.double(), weight.double())
    with torch.no_grad():
        ours = error(stock(layer)(x), truth)
    assert ours < 3 * error(reference.nc_conv2d(x, weight), truth)
    assert ours < 4e-7 * mean


def test_half_precision_takes_statistics_in_float32():
    layer = NCConv2d(16, 8, 3, bias=False)
    x = (30 * torch.randn(2, 16, 9, 9) + 1000).half()
    with torch.no_grad():
        truth = reference.nc_conv2d(x.double(), layer.weight.half().double())
        out = stock(layer.half())(x)
    assert out.dtype == torch.float16 and error(out, truth) < 2e-3
    large = (20000 * torch.randn(2, 16, 9, 9)).clamp(-60000, 60000).half()
    assert stock(layer)(large).isfinite().all()


class Network(nn.Module):
    """A stem, and a block with a skip connection."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(NCConv2d(4, 8, 7, 2, 3, bias=False), NCAffine(8), nn.ReLU())
        self.conv1, self.norm1 = NCConv2d(8, 8, 3, 2, 1, bias=False), NCAffine(8)
        self.down = NCConv2d(8, 8, 1, 2, affine=True)

    def forward(self, image):
        x = self.stem(image)
        return torch.relu(self.norm1(self.conv1(x)) + self.down(x))


def test_onnx_has_free_sizes_and_few_nodes(tmp_path):
    network = randomize(Network())
    state = {name: value.clone() for name, value in network.state_dict().items()}
    nc_plugins.export(network, tmp_path / 'network.onnx', torch.randn(1, 4, 9, 12))
    run, _ = load(tmp_path / 'network.onnx')
    for shape in SHAPES:
        x = torch.randn(shape) + 1
        with torch.no_grad():
            torch.testing.assert_close(run(x), network(x), rtol=1e-4, atol=1e-4)
    assert network.training  # the model itself has not changed
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name])


def test_onnx_of_one_layer(tmp_path):
    layer = NCConv2d(8, 6, 3, padding=1, affine=True)
    nc_plugins.export(layer, tmp_path / 'layer.onnx', torch.randn(1, 8, 9, 9))
    run, nodes = load(tmp_path / 'layer.onnx')
    assert len(nodes) == 13 and nodes.count('ReduceSumSquare') == 2 and 'Pow' not in nodes
    x = torch.randn(2, 8, 12, 10) + 1000
    truth = reference.nc_conv2d(x.double(), layer.weight.detach().double(), padding=1)
    assert error(run(x), truth) < 4e-4


def test_onnx_in_float16(tmp_path):
    layer = NCConv2d(8, 6, 1, bias=False).half()
    nc_plugins.export(layer, tmp_path / 'layer.onnx', torch.randn(1, 8, 9, 9).half())
    run, _ = load(tmp_path / 'layer.onnx')
    x = torch.randn(2, 8, 12, 10).half()
    out = run(x)
    assert out.dtype == torch.float16
    with torch.no_grad():
        torch.testing.assert_close(out, layer(x), rtol=5e-3, atol=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize('kind', GENERAL)
def test_onnx_of_the_other_layers(kind, tmp_path):
    layer, options = LAYERS[kind]
    model = pair(layer, **options).float()
    nc_plugins.export(model, tmp_path / 'layer.onnx', torch.randn(1, 4, 9, 12))
    run, _ = load(tmp_path / 'layer.onnx')
    for shape in SHAPES:
        x = torch.randn(shape) + 1
        with torch.no_grad():
            torch.testing.assert_close(run(x), model(x), rtol=1e-4, atol=1e-4)


def test_torch_program_has_free_sizes(tmp_path):
    network = randomize(Network())
    file = tmp_path / 'network.pt2'
    nc_plugins.export(network, file, torch.randn(1, 4, 9, 12), format='torch')
    run = torch.export.load(file).module()
    for shape in SHAPES:
        x = torch.randn(shape)
        with torch.no_grad():
            torch.testing.assert_close(run(x), network(x), rtol=1e-4, atol=1e-4)


class WithPositions(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.positions = NCConv2d(4, 6, 3), nn.Parameter(torch.randn(1, 6, 3, 1))

    def forward(self, x):
        return self.conv(x) + self.positions


def test_an_axis_that_the_model_fixes_is_named(tmp_path):
    wanted = "export: axis 2 of x is always 5 in the file, because the model's code"
    with pytest.warns(UserWarning, match=wanted):
        nc_plugins.export(WithPositions(), tmp_path / 'm.pt2', torch.randn(1, 4, 5, 6), 'torch')
    run = torch.export.load(tmp_path / 'm.pt2').module()
    assert run(torch.randn(2, 4, 5, 8)).shape == (2, 6, 3, 6)


def test_a_wrong_join_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match='norm is joined with conv'):
        nc_plugins.export(NormFirst(), tmp_path / 'm.pt2', torch.randn(1, 4, 5, 5), 'torch')


def test_wrong_arguments(tmp_path):
    model, file = NCConv2d(4, 4, 3), tmp_path / 'm'
    with pytest.raises(ValueError, match=r"format is 'tflite', wanted one of \('onnx', 'torch'\)"):
        nc_plugins.export(model, file, torch.randn(1, 4, 5, 5), format='tflite')
    with pytest.raises(TypeError, match='example is or holds a list, wanted a tensor or a tuple'):
        nc_plugins.export(model, file, [torch.randn(1, 4, 5, 5)], format='torch')
    assert not file.exists()


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    with pytest.raises(ModuleNotFoundError, match=r"onnxscript: run pip install 'nc_plugins\[exp"):
        nc_plugins.export(NCConv2d(4, 4, 3), tmp_path / 'm.onnx', torch.randn(1, 4, 5, 5))
