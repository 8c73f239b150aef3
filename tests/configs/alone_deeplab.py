"""Reports the census and the plain convolutions of each config, a training step and a prediction.

At full width on noise; of 128x128 pixels, a 16th of VOC's crops and of their time, unless
NC_FULL_SIZE is set.
"""

import mmseg.datasets
import mmseg.evaluation
import mmseg.models  # noqa: F401 - with the two above, what a fork need not import
import torch
from alone import FULL_SIZE, answer, census, opened
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from mmseg.registry import DATASETS, METRICS, TRANSFORMS
from mmseg.structures import SegDataSample
from torch import nn


def report(path: str) -> dict:
    cfg, found = opened(path)
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

    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    found['census'] = census(model)
    found['plain'] = [name for name, m in model.named_modules() if type(m) is nn.Conv2d]
    found['groups'] = sorted({m.num_groups for m in model.modules() if type(m) is nn.GroupNorm})
    model = revert_sync_batchnorm(model)  # as mmengine's Runner does in a single process
    large = FULL_SIZE and 'r50' in found['name']
    side = 512 if large else 128
    # BatchNorm has nothing to normalise by where the pyramid's pool leaves one pixel an image.
    batch = 2 if not large or found['census'].get('BN') else 1
    found['loss'], found['untrained'] = train_step(model, cfg, side, batch)
    found['side'], found['predicted'] = side, predict(model, side)
    return found


def train_step(model, cfg, side: int, batch: int) -> tuple[float, list[str]]:
    """The loss of the first iteration on noise, and the parameters that got no gradient from it."""
    model.data_preprocessor.size = (side, side)
    labels = torch.randint(0, cfg.num_classes, (batch, 1, side, side))
    labels[:, :, :8] = 255
    data = dict(
        inputs=[torch.randint(0, 256, (3, side, side)).byte() for _ in range(batch)],
        data_samples=[SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels],
    )
    # Not whether they moved: some gains of BatchNorm, which are 1, have gradients of 1e-6.
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
    """Shape of the label map of one image of noise whose sides no stride divides."""
    shape = (side - 3, side * 4 // 3 - 3)
    sample = SegDataSample(metainfo=dict(ori_shape=(100, 133), img_shape=shape))
    data = dict(inputs=[torch.randint(0, 256, (3, *shape)).byte()], data_samples=[sample])
    with torch.no_grad():
        [result] = model.eval().test_step(data)
    assert result.seg_logits.data.isfinite().all()
    return list(result.pred_sem_seg.data.shape)


if __name__ == '__main__':
    answer(report)
