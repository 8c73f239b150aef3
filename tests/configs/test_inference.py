"""The inference tools of mmseg, mmdet and mmpretrain run the configs of this repository."""

from pathlib import Path

import mmcv
import numpy as np
import pytest
from mmengine.config import Config

for package in ('mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(package)

CONFIGS = Path(__file__).parents[2] / 'configs'
ARRAY = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)


@pytest.fixture
def image(tmp_path):
    path = str(tmp_path / 'image.png')
    mmcv.imwrite(ARRAY, path)
    return path


def test_segmentation(image):
    from mmseg.apis import MMSegInferencer, inference_model, init_model

    config = str(CONFIGS / 'deeplab/deeplabv3plus_r18-d8_nc_1xb2_digits.py')
    found = MMSegInferencer(config, device='cpu')([image, ARRAY], show=False)['predictions']
    assert [labels.shape for labels in found] == [(96, 96)] * 2
    assert found[0].max() < 11
    model = init_model(config, device='cpu')
    for picture in (image, ARRAY):
        assert inference_model(model, picture).pred_sem_seg.data.shape == (1, 96, 96)


def test_detection(image):
    from mmdet.apis import DetInferencer, inference_detector, init_detector

    config = str(CONFIGS / 'mask_rcnn/mask-rcnn_r18_fpn_nc-all_1xb2_digits.py')
    found = DetInferencer(config, device='cpu', show_progress=False)([image, ARRAY])['predictions']
    assert [{*prediction} for prediction in found] == [{'bboxes', 'scores', 'labels', 'masks'}] * 2
    model = init_detector(config, device='cpu')
    for picture in (image, ARRAY):
        found = inference_detector(model, picture).pred_instances
        assert len(found.bboxes) == len(found.masks) > 0


def test_classification(image):
    from mmpretrain import ImageClassificationInferencer

    config = str(CONFIGS / 'classification/resnet18_nc_1xb2_digits.py')
    tool = ImageClassificationInferencer(config, pretrained=False, device='cpu')
    for found in tool([image, ARRAY]):
        assert found['pred_scores'].shape == (10,) and found['pred_label'] < 10


@pytest.mark.parametrize('folder', ['deeplab', 'mask_rcnn'])
def test_every_config_has_the_steps_that_the_tools_look_for(folder):
    """They find the steps by name, and mmseg's inference_model finds the key test_pipeline."""
    for path in (CONFIGS / folder).glob('*.py'):
        cfg = Config.fromfile(path)
        steps = [step.type for step in cfg.test_dataloader.dataset.pipeline]
        assert steps[0] == 'LoadImageFromFile', path.name
        assert [step.type for step in cfg.test_pipeline] == steps, path.name
