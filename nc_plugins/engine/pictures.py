"""Draws the prediction for every test image (tools/test.py --show-dir)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from ..datasets.images import read_rgb
from .usage import UsageError


def picture_names(paths: Iterable[str]) -> dict[str, str]:
    """A different name of a PNG file for each image.

    It is the path of the image below the folder that all images share, with the suffix .png. If two
    images differ in their suffix only, all keep it: a.jpg.png, a.tif.png.
    """
    paths = list(dict.fromkeys(paths))
    folders = [os.path.dirname(path) for path in paths]
    shared = os.path.commonpath(folders) if paths else ''
    below = [PurePath(os.path.relpath(path, shared or '.')) for path in paths]
    # In lower case, because some file systems ignore it.
    clash = len({str(name.with_suffix('')).lower() for name in below}) < len(below)
    return {
        path: str(name.with_name(name.name + '.png') if clash else name.with_suffix('.png'))
        for path, name in zip(paths, below, strict=True)
    }


@HOOKS.register_module(force=True)
class PicturesHook(Hook):
    """Draw the prediction of mmdet, mmseg or mmpretrain for each test image into ``folder``.

    It takes the place of the visualization hooks of these packages, which name the pictures by the
    last part of the path only, so that pictures overwrite each other. It works on rank 0 only, so a
    distributed test draws only the images of rank 0.

    Args:
        folder: where the pictures go. Subfolders are those of the images.
        options: arguments for the visualizer, such as ``pred_score_thr=0.3`` for mmdet.
    """

    def __init__(self, folder: str, **options) -> None:
        self.folder, self.options = Path(folder), options
        self.names: dict[str, str] = {}
        self.count = 0

    def before_test(self, runner) -> None:
        dataset = runner.test_dataloader.dataset
        infos = (dataset.get_data_info(index) for index in range(len(dataset)))
        self.names = picture_names(info['img_path'] for info in infos if info.get('img_path'))
        originals = {os.path.realpath(path) for path in self.names}
        for name in self.names.values():
            target = os.path.realpath(self.folder / name)
            if target in originals:
                raise UsageError(f'--show-dir {self.folder} would overwrite the image {target}')

    def after_test_iter(
        self, runner, batch_idx, data_batch=None, outputs: Sequence | None = None
    ) -> None:
        if not is_main_process():
            return
        for place, sample in enumerate(outputs):
            self.count += 1
            path = sample.get('img_path')
            if path is None:  # the images of CIFAR-10 are not in files
                pixels = data_batch['inputs'][place]
                image = pixels.permute(1, 2, 0).cpu().numpy().astype('uint8')
                file = self.folder / f'{self.count:06d}.png'
            else:
                image = np.array(read_rgb(path))
                file = self.folder / self.names[path]
            file.parent.mkdir(parents=True, exist_ok=True)
            visualizer = runner.visualizer
            draw = getattr(visualizer, 'visualize_cls', None) or visualizer.add_datasample
            arguments = dict(image=image, data_sample=sample, out_file=str(file))
            draw(name=file.stem, **arguments, **self.options)
