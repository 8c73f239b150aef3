"""Shows what a translator does: sample grids while it trains, a picture a file in tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop
from mmengine.visualization import LocalVisBackend
from PIL import Image

from .translation_metrics import to_uint8

WAYS = {'AB': ('real_A', 'fake_B', 'cycled_A'), 'BA': ('real_B', 'fake_A', 'cycled_B')}


# force: a second import (reload, two names for one file) must register again, not raise.
@HOOKS.register_module(force=True)
class TranslationVisualizationHook(Hook):
    """Draw input, translation and the way back side by side.

    At every validation a grid of the first ``rows`` samples, on the left A -> B -> A, on the right
    B -> A -> B, goes to ``<work_dir>/samples/epoch_<n>.png`` (``iter_<n>.png`` where iterations
    are counted) and to the visualizer's backends (TensorBoard) under the name ``samples``.

    In a test with ``draw=True`` (``tools/test.py --show-dir DIR``) every image becomes a picture
    of three, a PNG under its own name in the folders AB and BA of ``test_out_dir``.

    Args:
        rows: samples in a grid; 0 for no grids.
        draw: write pictures in tests.
        test_out_dir: where; ``<work_dir>/translated`` by default.

    Reads what ``CycleGAN`` predicts; works on rank 0 alone, which in a distributed test draws its
    share of the images.
    """

    priority = 'NORMAL'

    def __init__(self, rows: int = 4, draw: bool = False, test_out_dir: str | None = None) -> None:
        if not isinstance(rows, int) or rows < 0:
            raise ValueError(f'rows wants an integer >= 0, got {rows!r}')
        self.rows, self.draw, self.test_out_dir = rows, draw, test_out_dir
        self._samples: list[dict] = []

    def before_val_epoch(self, runner) -> None:
        self._samples = []

    def after_val_iter(
        self, runner, batch_idx, data_batch=None, outputs: Sequence[dict] | None = None
    ) -> None:
        self._samples += outputs[: self.rows - len(self._samples)]

    def after_val_epoch(self, runner, metrics=None) -> None:
        if not self._samples or not is_main_process():
            return
        grid = np.concatenate(
            [np.concatenate([strip(s, way) for way in WAYS], axis=1) for s in self._samples]
        )
        self._samples = []
        folder = Path(runner.work_dir, 'samples')
        folder.mkdir(parents=True, exist_ok=True)
        by_epoch = not isinstance(runner.train_loop, IterBasedTrainLoop)
        step = runner.epoch if by_epoch else runner.iter
        Image.fromarray(grid).save(folder / f'{"epoch" if by_epoch else "iter"}_{step:03d}.png')
        for backend in runner.visualizer._vis_backends.values():
            # The local one would write the same file a second time.
            if not isinstance(backend, LocalVisBackend):
                backend.add_image('samples', grid, step=step)

    def after_test_iter(
        self, runner, batch_idx, data_batch=None, outputs: Sequence[dict] | None = None
    ) -> None:
        if not self.draw or not is_main_process():
            return
        root = self.test_out_dir or Path(runner.work_dir, 'translated')
        for sample in outputs:
            for way in WAYS:
                name = Path(sample[f'path_{way[0]}']).with_suffix('.png').name
                folder = Path(root, way)
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(strip(sample, way)).save(folder / name)


def strip(sample: dict, way: str) -> np.ndarray:
    """Input, translation and the way back of ``sample`` side by side, uint8 [H, 3 W, 3]."""
    row = torch.cat([to_uint8(sample[name]) for name in WAYS[way]], dim=2)
    return row.permute(1, 2, 0).cpu().numpy()
