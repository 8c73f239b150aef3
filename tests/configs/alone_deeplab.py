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
    found['loss'], found['still'] = train_step(model, cfg, side, batch)
    found['side'], found['predicted'] = side, predict(model, side)
    return found


def train_step(model, cfg, side: int, batch: int) -> tuple[float, list[str]]:
    """The loss of the first iteration on noise, and the parameters that it did not move."""
    model.data_preprocessor.size = (side, side)
    labels = torch.randint(0, cfg.num_classes, (batch, 1, side, side))
    labels[:, :, :8] = 255
    data = dict(
        inputs=[torch.randint(0, 256, (3, side, side)).byte() for _ in range(batch)],
        data_samples=[SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels],
    )
    cfg.optim_wrapper.optimizer.weight_decay = 0.0  # it would move what has no gradient
    optim = build_optim_wrapper(model, cfg.optim_wrapper)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    loss = model.train().train_step(data, optim)['loss'].item()
    return loss, [name for name, p in model.named_parameters() if torch.equal(p, before[name])]


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
