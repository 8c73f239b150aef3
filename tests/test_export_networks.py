"""One network of each task, exported once, computes the same in onnxruntime and OpenVINO."""

from pathlib import Path

import pytest
import torch
from torch import nn

import nc_plugins

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain')
pytest.importorskip('mmcv._ext', reason="mmdet and mmseg need mmcv's compiled operators")
onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')
openvino = pytest.importorskip('openvino')

CONFIGS = Path(__file__).parents[1] / 'configs'
# config, the part that the file contains, most nodes
NETWORKS = {
    'classification/resnet18_nc_1xb2_digits': (lambda model: model, 300),
    'deeplab/deeplabv3plus_r18-d8_nc_1xb2_digits': (lambda model: model, 400),
    'mask_rcnn/mask-rcnn_r18_fpn_nc-all_1xb2_digits': (
        lambda model: nn.Sequential(model.backbone, model.neck),
        300,
    ),
    'cyclegan/cyclegan_resnet2-w16_nc_1xb8-10e_digits': (
        lambda model: model.generator_AB,  # its two transposed convolutions have most of the nodes
        450,
    ),
}


def build(name):
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope

    config = Config.fromfile(CONFIGS / f'{name}.py')
    init_default_scope(config.default_scope)
    return NETWORKS[name][0](MODELS.build(config.model)).eval()


@pytest.mark.slow
@pytest.mark.parametrize('name', NETWORKS)
def test_both_runtimes_agree_with_eager_at_two_sizes(name, tmp_path):
    model, file = build(name), tmp_path / 'model.onnx'
    nc_plugins.export(model, file, torch.randn(1, 3, 64, 96))
    assert len(onnx.load(file).graph.node) <= NETWORKS[name][1]
    session = onnxruntime.InferenceSession(file, providers=['CPUExecutionProvider'])
    compiled = openvino.compile_model(
        file, 'CPU', {openvino.properties.hint.inference_precision: openvino.Type.f32}
    )
    for shape in ((2, 3, 64, 96), (1, 3, 128, 64)):
        x = torch.randn(shape)
        with torch.no_grad():
            expected = model(x)
        expected = (expected,) if isinstance(expected, torch.Tensor) else expected
        ours = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        theirs = list(compiled(x.numpy()).values())
        for out, first, second in zip(expected, ours, theirs, strict=True):
            limit = 1e-4 * out.abs().max().item()
            torch.testing.assert_close(torch.from_numpy(first), out, rtol=0, atol=limit)
            torch.testing.assert_close(torch.from_numpy(second), out, rtol=0, atol=limit)


@pytest.mark.slow
def test_float16(tmp_path):
    model, file = build('classification/resnet18_nc_1xb2_digits'), tmp_path / 'model.onnx'
    images = [torch.randn(shape).half() for shape in ((2, 3, 64, 96), (1, 3, 128, 64))]
    with torch.no_grad():
        expected = [model(x.float()) for x in images]
    nc_plugins.export(model.half(), file, images[0])
    session = onnxruntime.InferenceSession(file, providers=['CPUExecutionProvider'])
    compiled = openvino.compile_model(file, 'CPU')
    for x, out in zip(images, expected, strict=True):
        limit = 0.02 * out.abs().max().item()
        ours = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
        theirs = compiled(x.numpy())[0]
        for result in (ours, theirs):
            assert result.dtype == 'float16'
            torch.testing.assert_close(torch.from_numpy(result).float(), out, rtol=0, atol=limit)
