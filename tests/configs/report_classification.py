"""Report layers and activations of each config, and a training step of those in STEPS."""

import mmpretrain.models  # noqa: F401
import torch
from fresh_process import STEPS, answer, census, open_config
from mmengine.registry import MODELS
from mmpretrain.registry import METRICS
from mmpretrain.structures import DataSample


def report(path: str) -> dict:
    cfg, found = open_config(path)
    found['metrics'] = [m.type for m in cfg.val_evaluator if METRICS.get(m.type) is not None]
    # Fewer channels, the same layers. GroupNorm with 32 groups needs at least 32 channels.
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
    if found['name'] in STEPS:
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
