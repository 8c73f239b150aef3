"""Reports the census of each config, its activations, and a training step for those in STEP."""

import os

import mmpretrain.models  # noqa: F401
import torch
from alone import answer, census, opened
from mmengine.registry import MODELS
from mmpretrain.registry import METRICS
from mmpretrain.structures import DataSample

STEP = os.environ.get('STEP', '').split(',')


def report(path: str) -> dict:
    cfg, found = opened(path)
    found['metrics'] = [m.type for m in cfg.val_evaluator if METRICS.get(m.type) is not None]
    # A narrow model has the same layers; 32 channels still divide into 32 groups.
    width = 32
    expansion = 4 if cfg.model.backbone.depth == 50 else 1
    cfg.model.backbone.update(stem_channels=width, base_channels=width)
    cfg.model.head.in_channels = width * 8 * expansion
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    found['census'] = census(model)
    found['groups'] = sorted({m.num_groups for m in model.modules() if hasattr(m, 'num_groups')})
    acts = [m for m in model.modules() if type(m).__module__ == 'torch.nn.modules.activation']
    found['activations'] = sorted({type(m).__name__ for m in acts})
    if found['name'] in STEP:
        model.init_weights()
        size = 64 if cfg.model.backbone.depth == 50 else 32
        samples = [DataSample().set_gt_label(label) for label in (0, 1)]
        loss = model.train()(torch.randn(2, 3, size, size), samples, mode='loss')['loss']
        loss.backward()
        found['loss'] = loss.item()
        found['grads'] = all(p.grad is not None for p in model.parameters())
    return found


if __name__ == '__main__':
    answer(report)
