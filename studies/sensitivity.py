#!/usr/bin/env python3
"""How far the features of an untrained ResNet-50 follow a small change of its input, by norm.

    python studies/sensitivity.py

Writes docs/results/micro-batch/sensitivity.csv. For each norm, seed and residual block:

- ``sensitivity``: relative change of the features after a relative change of the input by 2^-9, the
  rounding error of bfloat16. The mean of each channel is removed before, because a constant says
  nothing about the image.
- ``constant``: part of the squared features that is the mean of their channel.
- ``rank``: effective number of directions, exp(entropy) of the normalised squared singular values
  of the features without channel means, [images and positions, channels].

The input is 16 test images of CIFAR-10, resized to 96 pixels. They are read from data/cifar10, or
downloaded into it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import nc_plugins  # noqa: E402
from nc_plugins.datasets.cifar10 import CIFAR10Folders  # noqa: E402
from nc_plugins.layers import NCConv2d  # noqa: E402
from studies.results import FOLDER, write_lines  # noqa: E402

NORMS = ('NC', 'NCWS', 'BN', 'WS+GN', 'GN', 'LN', 'IN', 'PN', 'NC without centring')
SEEDS = 3
CHANGE = 2**-9
OUT = FOLDER / 'sensitivity.csv'


def network(norm: str, seed: int) -> nn.Module:
    """torchvision's ResNet-50 with its own initialisation, in training mode for BatchNorm."""
    torch.manual_seed(seed)
    model = torchvision.models.resnet50()
    to = 'NC' if norm == 'NC without centring' else norm
    if to != 'BN':
        model, _ = nc_plugins.convert(model, to=to)
    if to != norm:
        for module in model.modules():
            if isinstance(module, NCConv2d):
                module.center = False
    return model


def images(count: int = 16, size: int = 96) -> Tensor:
    """Normalised test images [count, 3, size, size]."""
    dataset = CIFAR10Folders(str(ROOT / 'data/cifar10'), 'test', per_class=2, test_mode=True)
    data = torch.stack([torch.as_tensor(dataset[i]['img']) for i in range(count)])
    data = data.movedim(-1, 1).float()
    data = (data - data.mean((0, 2, 3), keepdim=True)) / data.std((0, 2, 3), keepdim=True)
    return F.interpolate(data, size=(size, size), mode='bilinear', antialias=True)


@torch.no_grad()
def features(model: nn.Module, x: Tensor) -> Iterator[Tensor]:
    """The outputs of the 16 residual blocks as [images and positions, channels], in float64."""
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        for block in stage:
            x = block(x)
            yield x.movedim(1, -1).flatten(0, -2).double()


def measures(before: Tensor, after: Tensor) -> dict[str, float]:
    """The columns of the file for the features of the original and the changed images."""
    centred = before - before.mean(0)
    change = (after - after.mean(0)) - centred
    share = torch.linalg.svdvals(centred).square()
    share = share / share.sum()
    return {
        'sensitivity': (change.norm() / centred.norm()).item(),
        'constant': 1 - (centred.norm() / before.norm()).square().item(),
        'rank': torch.special.entr(share).sum().exp().item(),
    }


def main() -> int:
    x = images()
    torch.manual_seed(0)
    noise = torch.randn_like(x)
    changed = x + noise * (CHANGE * x.norm() / noise.norm())
    lines = []
    for norm in NORMS:
        for seed in range(SEEDS):
            model = network(norm, seed)
            pairs = zip(features(model, x), features(model, changed), strict=True)
            for block, (before, after) in enumerate(pairs, 1):
                values = {k: f'{v:.4g}' for k, v in measures(before, after).items()}
                lines.append({'norm': norm, 'seed': seed, 'block': block, **values})
            print(norm, seed, lines[-1], flush=True)
    write_lines(OUT, lines)
    return 0


if __name__ == '__main__':
    sys.exit(main())
