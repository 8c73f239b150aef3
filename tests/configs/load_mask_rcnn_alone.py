"""Loads each Mask R-CNN config in a process of its own; run by test_mask_rcnn.

    python load_mask_rcnn_alone.py CONFIG ...

One JSON line a config: what it is made of, and with a name in STEP what one training iteration and
one evaluation image do. The images are random; 800x1333 pixels and 512 regions take a processor two
minutes, so a model made for these gets 128x213 and 16 unless FULL_SIZE is set. The processes are
forks of one that has imported mmdet, which takes seconds, and not nc_plugins.
"""

import json
import os
import sys
from pathlib import Path

import mmdet.datasets
import mmdet.evaluation
import mmdet.models  # noqa: F401
import torch
from mmdet.registry import DATASETS, HOOKS, METRICS, MODELS, TRANSFORMS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import nn

STEP = os.environ.get('STEP', '').split(',')
FULL_SIZE = bool(os.environ.get('FULL_SIZE'))


def report(path: str) -> dict:
    found = {'name': Path(path).stem, 'absent_before': 'nc_plugins' not in sys.modules}
    cfg = Config.fromfile(path)
    found['present_after'] = 'nc_plugins' in sys.modules
    init_default_scope(cfg.default_scope)
    found['unknown'] = [name for name, registry in types(cfg) if registry.get(name) is None]
    found['hooks'] = [hook.type for hook in cfg.custom_hooks]

    from nc_plugins import layer_census
    from nc_plugins.layers import NCConv2d

    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    found['census'] = {kind: n for kind, n in layer_census(model).items() if n}
    found['plain'] = [
        name
        for name, module in model.named_modules()
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
        and not isinstance(module, NCConv2d)
        and not norm_beside(model, name)
    ]
    if found['name'] in STEP:
        found.update(step(cfg, model))
    return found


def types(cfg):
    """Every type that the Runner would look up, with its registry."""
    for hook in cfg.custom_hooks:
        yield hook.type, HOOKS
    yield cfg.val_evaluator.type, METRICS
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        while 'pipeline' not in dataset:
            yield dataset.type, DATASETS
            dataset = dataset.dataset
        yield dataset.type, DATASETS
        for transform in dataset.pipeline:
            yield transform.type, TRANSFORMS


def norm_beside(model: nn.Module, name: str) -> bool:
    """Whether a norm stands beside the convolution ``name`` in its block or ConvModule."""
    parent = model.get_submodule(name.rpartition('.')[0])
    norms = (nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
    return any(isinstance(child, norms) for child in parent.children())


def step(cfg, model) -> dict:
    """One iteration through the config's optimiser, then one image through the whole test path."""
    wide, high = next(t for t in cfg.test_pipeline if t.type == 'Resize').scale
    if wide > 1000 and not FULL_SIZE:
        wide, high = 213, 128
        model.roi_head.bbox_sampler.num = 16
        model.roi_head.test_cfg.max_per_img = 10
    batch = 1 if wide > 1000 else cfg.train_dataloader.batch_size
    data = demo_mm_inputs(
        batch,
        [(3, high, wide)] * batch,
        num_items=[4, 0][:batch],  # the second image is empty
        num_classes=cfg.model.roi_head.bbox_head.num_classes,
        with_mask=True,
    )
    model.init_weights()
    cfg.optim_wrapper.optimizer.weight_decay = 0.0  # it would move what has no gradient
    optim = build_optim_wrapper(model, cfg.optim_wrapper)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = model.train().train_step(data, optim)
    found = {
        'losses': {name: sum_of(value) for name, value in losses.items() if 'loss' in name},
        'still': [n for n, p in model.named_parameters() if torch.equal(p, before[n])],
    }
    # Untrained scores are as low as 0; below that the mask head has work too.
    model.roi_head.test_cfg.score_thr = -1.0
    image = {key: values[:1] for key, values in data.items()}
    with torch.no_grad():
        objects = model.eval().test_step(image)[0].pred_instances
    found['size'] = [high, wide]
    found['masks'] = list(objects.masks.shape)
    found['finite'] = all(bool(t.isfinite().all()) for t in (objects.bboxes, objects.scores))
    return found


def sum_of(loss) -> float:
    return float(sum(loss).detach() if isinstance(loss, list) else loss.detach())


def main() -> None:
    torch.set_num_threads(1)
    for path in sys.argv[1:]:
        child = os.fork()
        if child == 0:
            print(json.dumps(report(path)), flush=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            sys.exit(f'{path}: exit status {status}')


if __name__ == '__main__':
    main()
