#!/usr/bin/env python3
"""How smooth the loss is along the gradient during training, by norm.

    python studies/smoothness.py

The measures are those of Santurkar et al. (arXiv 1805.11604), which Section 2.2 of the NC paper
uses. Every 50 iterations the training stops at weights w, with gradient g of the loss of the next
batch, and looks at w - s * lr * g on the same batch, for s from 1/2 to 4. Writes
docs/results/micro-batch/smoothness.csv with a line for each stop:

- ``loss_low``, ``loss_high``: smallest and largest loss along the gradient, minus the loss at w.
- ``gradient_change``: largest change of the gradient, divided by the norm of g.
- ``beta``: largest change of the gradient, divided by the distance, 1 / unit of weight squared.

Networks, data and learning rate are those of studies/configs at the paper's rate, batches of two.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings
from torch import Tensor, nn

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from nc_plugins.engine.seeding import seed_all  # noqa: E402
from nc_plugins.layers import join_affines  # noqa: E402
from studies.results import FOLDER, write_lines  # noqa: E402
from studies.worklist import MAIN, PAPER_RATE  # noqa: E402

SEEDS = 3
ITERATIONS, INTERVAL = 1000, 50
STEPS = (0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4)  # in units of the learning rate
OUT = FOLDER / 'smoothness.csv'


def loss_and_gradient(model: nn.Module, batch: dict) -> tuple[float, list[Tensor]]:
    """The loss of ``batch`` and its gradient with respect to all parameters."""
    losses = model(**model.data_preprocessor(batch, training=True), mode='loss')
    loss, _ = model.parse_losses(losses)
    return loss.item(), list(torch.autograd.grad(loss, list(model.parameters())))


def along_gradient(model: nn.Module, batch: dict, rate: float) -> dict[str, float]:
    """The measures at the present weights. The model stays as it is."""
    model = copy.deepcopy(model)  # BatchNorm would update its running statistics
    loss, gradient = loss_and_gradient(model, batch)
    start = [p.detach().clone() for p in model.parameters()]
    size = norm(gradient)
    losses, changes, betas = [], [], []
    for step in STEPS:
        with torch.no_grad():
            for p, before, g in zip(model.parameters(), start, gradient, strict=True):
                p.copy_(before - step * rate * g)
        moved_loss, moved = loss_and_gradient(model, batch)
        change = norm([a - b for a, b in zip(moved, gradient, strict=True)])
        losses.append(moved_loss - loss)
        changes.append(change / size)
        betas.append(change / (step * rate * size))
    return {
        'loss_low': min(losses),
        'loss_high': max(losses),
        'gradient_change': max(changes),
        'beta': max(betas),
    }


def norm(tensors: list[Tensor]) -> float:
    return torch.stack([t.norm() for t in tensors]).norm().item()


def stops(method: str, seed: int) -> Iterator[dict]:
    """Train a network and yield the measures at every stop."""
    cfg = Config.fromfile(ROOT / f'studies/configs/{method}.py')
    cfg.train_dataloader.dataset.data_root = str(ROOT / 'data/cifar10')
    import_modules_from_strings(**cfg.custom_imports)
    init_default_scope(cfg.default_scope)
    seed_all(seed)
    model = MODELS.build(cfg.model)
    model.init_weights()
    join_affines(model)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=PAPER_RATE)
    batches = iter(Runner.build_dataloader(cfg.train_dataloader, seed=seed))
    for iteration in range(ITERATIONS):
        batch = next(batches)
        if iteration % INTERVAL == 0:
            values = along_gradient(model, batch, PAPER_RATE)
            values = {key: f'{value:.4g}' for key, value in values.items()}
            yield {'method': method, 'seed': seed, 'iteration': iteration, **values}
        _, gradient = loss_and_gradient(model, batch)
        for p, g in zip(model.parameters(), gradient, strict=True):
            p.grad = g
        optimizer.step()


def main() -> int:
    lines = []
    for method in MAIN:
        for seed in range(SEEDS):
            lines += stops(method, seed)
            print(f'{method} seed {seed}: {lines[-1]}', flush=True)
    write_lines(OUT, lines)
    return 0


if __name__ == '__main__':
    sys.exit(main())
