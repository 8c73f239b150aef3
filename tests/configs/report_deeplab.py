"""Report the layers of each config, and a training step and a prediction of those in STEPS.

The model has its full width. The images are noise of 128x128 pixels, or 512x512 with FULL_SIZE.
"""

import mmseg.datasets
import mmseg.evaluation
import mmseg.models  # noqa: F401 - imported before the fork, so once for all configs
import torch
from fresh_process import FULL_SIZE, STEPS, answer, census, open_config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from mmseg.registry import DATASETS, METRICS, TRANSFORMS
from mmseg.structures import SegDataSample
from torch import nn


def report(path: str) -> dict:
    cfg, found = open_config(path)
    found['metric'] = all(METRICS.get(m.type) is not None for m in cfg.val_evaluator)
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

    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    found['census'] = census(model)
    found['plain'] = [name for name, m in model.named_modules() if type(m) is nn.Conv2d]
    found['groups'] = sorted({m.num_groups for m in model.modules() if type(m) is nn.GroupNorm})
    if found['name'] in STEPS:
        model.init_weights()
        # mmengine's Runner does the same in a single process.
        found.update(step(revert_sync_batchnorm(model), cfg))
    return found


def step(model, cfg) -> dict:
    side = 512 if FULL_SIZE else 128
    # The image pooling of ASPP leaves one pixel, and BatchNorm needs two values per channel.
    batch = 1 if FULL_SIZE and not census(model).get('BN') else 2
    loss, untrained = train_step(model, cfg, side, batch)
    return {
        'loss': loss,
        'untrained': untrained,
        'side': side,
        'predicted': predict(model, side),
    }


def train_step(model, cfg, side: int, batch: int) -> tuple[float, list[str]]:
    """The loss of an iteration on noise, and the parameters without a usable gradient."""
    model.data_preprocessor.size = (side, side)
    labels = torch.randint(0, cfg.num_classes, (batch, 1, side, side))
    labels[:, :, :8] = 255
    data = dict(
        inputs=[torch.randint(0, 256, (3, side, side)).byte() for _ in range(batch)],
        data_samples=[SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels],
    )
    # Gradients instead of weights before and after: a gradient of 1e-6 does not change a gain of 1.
    trained = set()
    for name, parameter in model.named_parameters():
        parameter.register_post_accumulate_grad_hook(
            lambda p, name=name: trained.add(name) if usable(p.grad) else None
        )
    optim = build_optim_wrapper(model, cfg.optim_wrapper)
    loss = model.train().train_step(data, optim)['loss'].item()
    return loss, [name for name, _ in model.named_parameters() if name not in trained]


def usable(grad) -> bool:
    return bool(grad.isfinite().all() and grad.any())


def predict(model, side: int) -> list:
    """The shape of the label map of an image whose height and width no stride divides."""
    shape = (side - 3, side * 4 // 3 - 3)
    sample = SegDataSample(metainfo=dict(ori_shape=(100, 133), img_shape=shape))
    data = dict(inputs=[torch.randint(0, 256, (3, *shape)).byte()], data_samples=[sample])
    with torch.no_grad():
        [result] = model.eval().test_step(data)
    assert result.seg_logits.data.isfinite().all()
    return list(result.pred_sem_seg.data.shape)


if __name__ == '__main__':
    answer(report)
