"""Loads each config in a process of its own that has not imported nc_plugins; run by test_deeplab.

    python load_deeplab_alone.py CONFIG ...

One JSON line a config: was nc_plugins absent before, the census of the model at its full width and
its plain convolutions by name, and what one training step and one prediction gave on noise. The
processes are forks of one that has imported mmseg, which takes seconds.
"""

import json
import os
import sys
from pathlib import Path

import mmseg.datasets
import mmseg.evaluation
import mmseg.models  # noqa: F401 - with the two above, what a fork need not import
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import DATASETS, HOOKS, METRICS, TRANSFORMS
from mmseg.structures import SegDataSample
from torch import nn


def report(path: str) -> dict:
    found = {'name': Path(path).stem, 'absent_before': 'nc_plugins' not in sys.modules}
    cfg = Config.fromfile(path)
    found['present_after'] = 'nc_plugins' in sys.modules
    init_default_scope(cfg.default_scope)
    found['hooks'] = [h.type for h in cfg.custom_hooks if HOOKS.get(h.type) is not None]
    found['metric'] = METRICS.get(cfg.val_evaluator.type) is not None
    found['unknown'] = [
        kind
        for loader in (cfg.train_dataloader, cfg.val_dataloader)
        for part in loader.dataset.get('datasets', [loader.dataset])
        for registry, kind in [
            (DATASETS, part.type),
            *((TRANSFORMS, step.type) for step in part.pipeline),
        ]
        if registry.get(kind) is None
    ]

    from nc_plugins import layer_census

    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    found['census'] = {kind: n for kind, n in layer_census(model).items() if n}
    found['plain'] = [name for name, m in model.named_modules() if type(m) is nn.Conv2d]
    found['groups'] = sorted({m.num_groups for m in model.modules() if type(m) is nn.GroupNorm})
    model = revert_sync_batchnorm(model)  # as mmengine's Runner does in a single process
    found['loss'] = train_step(model, cfg)
    found['grads'] = all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    found['predicted'] = predict(model)
    return found


def train_step(model, cfg) -> float:
    """The loss of the first training iteration, after a backward pass; two images of noise."""
    height = width = 128  # a 16th of VOC's crops and of their time; the network is the same
    model.data_preprocessor.size = (height, width)
    images = [torch.randint(0, 256, (3, height, width)).byte() for _ in range(2)]
    labels = torch.randint(0, cfg.num_classes, (2, 1, height, width))
    labels[:, :, :8] = 255
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
    batch = model.data_preprocessor(dict(inputs=images, data_samples=samples), training=True)
    losses = model.train()(**batch, mode='loss')
    loss = sum(value for name, value in losses.items() if 'loss' in name)
    loss.backward()
    return loss.item()


def predict(model) -> list:
    """Shape of the label map of one image of noise whose sides no stride divides."""
    image = torch.randint(0, 256, (3, 125, 167)).byte()
    sample = SegDataSample(metainfo=dict(ori_shape=(100, 133), img_shape=(125, 167)))
    batch = model.data_preprocessor(dict(inputs=[image], data_samples=[sample]))
    with torch.no_grad():
        [result] = model.eval()(**batch, mode='predict')
    assert result.seg_logits.data.isfinite().all()
    return list(result.pred_sem_seg.data.shape)


def main() -> None:
    torch.set_num_threads(1)
    for path in sys.argv[1:]:
        child = os.fork()
        if child == 0:
            print(json.dumps(report(path), default=bool), flush=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            sys.exit(f'{path}: exit status {status}')


if __name__ == '__main__':
    main()
