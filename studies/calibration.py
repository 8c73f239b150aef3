#!/usr/bin/env python3
"""What a trained BatchNorm network keeps when it is converted, by target, start and steps.

    python tools/make_digits.py data/digits
    python studies/calibration.py

A thin ResNet-18 is trained with BatchNorm and batches of 32 on the handwritten digits. Then it is
converted to NC or GroupNorm, with calibration on 128 training images or without, and trained on
with batches of two. The third start is from scratch. Writes
docs/results/micro-batch/calibration.csv: the validation accuracy after 0, 100 and 1,000 steps.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings
from torch import nn
from torch.utils.data import DataLoader

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import nc_plugins  # noqa: E402
from nc_plugins.engine.seeding import seed_all  # noqa: E402
from nc_plugins.layers import join_affines  # noqa: E402
from studies.results import FOLDER, write_lines  # noqa: E402

SEEDS = 3
TARGETS = ('NC', 'GN')
STARTS = ('calibrated', 'not calibrated', 'scratch')
BN_BATCH, BN_RATE, BN_STEPS = 32, 0.05, 500
BATCH, RATE, STEPS = 2, 0.01, (0, 100, 1000)
CALIBRATION_BATCHES = 4  # of 32 images
OUT = FOLDER / 'calibration.csv'


def loader(cfg: Config, split: str, batch: int, seed: int) -> DataLoader:
    settings = copy.deepcopy(cfg[f'{split}_dataloader'])
    settings.dataset.data_root = str(ROOT / settings.dataset.data_root)
    settings.batch_size = batch
    return Runner.build_dataloader(settings, seed=seed)


def train(model: nn.Module, batches: Iterator[dict], rate: float, steps: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    model.train()
    for _ in range(steps):
        losses = model(**model.data_preprocessor(next(batches), training=True), mode='loss')
        optimizer.zero_grad()
        losses['loss'].backward()
        optimizer.step()


@torch.no_grad()
def accuracy(model: nn.Module, batches: DataLoader) -> float:
    """Top-1 accuracy in percent."""
    model.eval()
    right = [
        int(sample.pred_label == sample.gt_label)
        for batch in batches
        for sample in model.val_step(batch)
    ]
    return 100 * sum(right) / len(right)


def endless(batches: DataLoader) -> Iterator[dict]:
    return chain.from_iterable(repeat(batches))


def results(seed: int) -> Iterator[dict]:
    """All lines of a seed."""
    cfg = Config.fromfile(ROOT / 'configs/classification/resnet18_bn_1xb2_digits.py')
    import_modules_from_strings(**cfg.custom_imports)
    init_default_scope(cfg.default_scope)
    seed_all(seed)
    scratch = MODELS.build(cfg.model)
    scratch.init_weights()
    validation = loader(cfg, 'val', 100, seed)
    trained = copy.deepcopy(scratch)
    large = loader(cfg, 'train', BN_BATCH, seed)
    train(trained, endless(large), BN_RATE, BN_STEPS)
    before = accuracy(trained, validation)
    yield {'to': 'BN', 'start': '', 'seed': seed, 'steps': BN_STEPS, 'top1': round(before, 2)}
    some = [batch for batch, _ in zip(large, range(CALIBRATION_BATCHES), strict=False)]
    for to in TARGETS:
        for start in STARTS:
            model = copy.deepcopy(scratch if start == 'scratch' else trained).eval()
            calibrate = some if start == 'calibrated' else None
            model, _ = nc_plugins.convert(model, to=to, calibrate=calibrate)
            join_affines(model)
            done, batches = 0, endless(loader(cfg, 'train', BATCH, seed))
            for steps in STEPS:
                train(model, batches, RATE, steps - done)
                done = steps
                top1 = round(accuracy(model, validation), 2)
                yield {'to': to, 'start': start, 'seed': seed, 'steps': steps, 'top1': top1}


def main() -> int:
    lines = []
    for seed in range(SEEDS):
        for line in results(seed):
            lines.append(line)
            print(line, flush=True)
    write_lines(OUT, lines)
    return 0


if __name__ == '__main__':
    sys.exit(main())
