"""Hooks for image translation: pictures of the results, and image pools in checkpoints."""

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

from ..records import SAMPLES
from .first_iteration import unwrapped
from .pictures import picture_names
from .translation_metrics import to_uint8

WAYS = {'AB': ('real_A', 'fake_B', 'cycled_A'), 'BA': ('real_B', 'fake_A', 'cycled_B')}


# force: a second import (reload, two names for one file) must register again, not raise.
@HOOKS.register_module(force=True)
class TranslationVisualizationHook(Hook):
    """Draw input, translation and cycled image side by side.

    Each validation draws a grid of the first ``rows`` samples: A -> B -> A on the left, and
    B -> A -> B on the right. The grid is saved as ``<work_dir>/samples/epoch_<n>.png``
    (``iter_<n>.png`` without epochs) and added to the visualizer's backends, such as TensorBoard,
    under the name ``samples``.

    A test with ``draw=True`` (``tools/test.py --show-dir DIR``) draws three images side by side for
    each input, as a PNG with the input's name in ``test_out_dir``/AB or ``test_out_dir``/BA.
    If two inputs differ in their suffix only, all keep it in the name: a.jpg.png.

    Args:
        rows: samples in a grid, 0 for no grid.
        draw: draw in tests.
        test_out_dir: folder for tests, ``<work_dir>/translated`` by default.

    The hook needs the predictions of ``CycleGAN``. It works on rank 0 only, so a distributed test
    draws only the images of rank 0.
    """

    priority = 'NORMAL'

    def __init__(self, rows: int = 4, draw: bool = False, test_out_dir: str | None = None) -> None:
        if not isinstance(rows, int) or rows < 0:
            raise ValueError(f'rows must be an integer >= 0, got {rows!r}')
        self.rows, self.draw, self.test_out_dir = rows, draw, test_out_dir
        self._samples: list[dict] = []
        self._names: dict[str, dict[str, str]] = {}  # domain -> path -> name of its picture

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
        folder = Path(runner.work_dir, SAMPLES)
        folder.mkdir(parents=True, exist_ok=True)
        by_epoch = not isinstance(runner.train_loop, IterBasedTrainLoop)
        step = runner.epoch if by_epoch else runner.iter
        Image.fromarray(grid).save(folder / f'{"epoch" if by_epoch else "iter"}_{step:03d}.png')
        for backend in runner.visualizer._vis_backends.values():
            # LocalVisBackend would save the same picture a second time.
            if not isinstance(backend, LocalVisBackend):
                backend.add_image('samples', grid, step=step)

    def before_test(self, runner) -> None:
        files = runner.test_dataloader.dataset.files
        # Different names for all inputs, so that no picture overwrites another.
        self._names = {domain: picture_names(map(str, files[domain])) for domain in files}

    def after_test_iter(
        self, runner, batch_idx, data_batch=None, outputs: Sequence[dict] | None = None
    ) -> None:
        if not self.draw or not is_main_process():
            return
        root = self.test_out_dir or Path(runner.work_dir, 'translated')
        for sample in outputs:
            for way in WAYS:
                folder = Path(root, way)
                folder.mkdir(parents=True, exist_ok=True)
                name = self._names[way[0]][sample[f'path_{way[0]}']]
                Image.fromarray(strip(sample, way)).save(folder / name)


@HOOKS.register_module(force=True)
class ImagePoolHook(Hook):
    """Saves the image pools of a ``CycleGAN`` in checkpoints, and restores them on a resume.

    With several processes the pools of rank 0 are saved, and every rank resumes with them.
    """

    def __init__(self) -> None:
        self._loaded: dict = {}

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        if 'optimizer' in checkpoint:  # a checkpoint to resume from
            pools = {name: pool.images for name, pool in _pools(runner).items()}
            checkpoint['image_pools'] = pools

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        self._loaded = checkpoint.get('image_pools', {})

    def before_train(self, runner) -> None:
        loaded, self._loaded = self._loaded, {}
        if runner.iter > 0:
            for name, images in loaded.items():
                _pools(runner)[name].images = list(images)


def _pools(runner) -> dict:
    model = unwrapped(runner.model)
    return {'A': model.pool_A, 'B': model.pool_B}


def strip(sample: dict, way: str) -> np.ndarray:
    """Input, translation and cycled image side by side, uint8 [H, 3 W, 3].

    ``way`` is 'AB' or 'BA'.
    """
    row = torch.cat([to_uint8(sample[name]) for name in WAYS[way]], dim=2)
    return row.permute(1, 2, 0).cpu().numpy()
