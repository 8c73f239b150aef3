"""Report the layers of each config, and a training iteration and a prediction of those in STEPS.

The images are noise. An iteration at 800x1333 pixels with 512 regions takes two minutes on a CPU,
so the configs for COCO get 128x213 pixels and 16 regions; with FULL_SIZE they get their own size.
"""

import mmdet.datasets
import mmdet.evaluation
import mmdet.models  # noqa: F401
import torch
from fresh_process import FULL_SIZE, STEPS, answer, census, open_config
from mmdet.registry import DATASETS, METRICS, MODELS, TRANSFORMS
from mmdet.testing import demo_mm_inputs
from mmengine.optim import build_optim_wrapper
from torch import nn


def report(path: str) -> dict:
    cfg, found = open_config(path)
    found['unknown'] = [name for name, registry in types(cfg) if registry.get(name) is None]

    from nc_plugins.layers import NCConv2d

    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    found['census'] = census(model)
    found['plain'] = [
        name
        for name, module in model.named_modules()
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
        and not isinstance(module, NCConv2d)
        and not norm_beside(model, name)
    ]
    if found['name'] in STEPS:
        found.update(step(cfg, model))
    return found


def types(cfg):
    """Every type that the Runner looks up, with its registry."""
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
    """Whether the block or ConvModule of the convolution ``name`` contains a norm layer."""
    parent = model.get_submodule(name.rpartition('.')[0])
    norms = (nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
    return any(isinstance(child, norms) for child in parent.children())


def step(cfg, model) -> dict:
    """Train one iteration with the config's optimiser, then predict one image."""
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
    # Weight decay would change parameters that have no gradient.
    cfg.optim_wrapper.optimizer.weight_decay = 0.0
    optim = build_optim_wrapper(model, cfg.optim_wrapper)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = model.train().train_step(data, optim)
    found = {
        'losses': {name: sum_of(value) for name, value in losses.items() if 'loss' in name},
        'unchanged': [n for n, p in model.named_parameters() if torch.equal(p, before[n])],
    }
    # The scores of an untrained model can be 0. The mask head needs accepted detections.
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


if __name__ == '__main__':
    answer(report)
