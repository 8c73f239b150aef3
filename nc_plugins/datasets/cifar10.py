"""CIFAR-10 from class folders where they are there, else from the original pickles."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from urllib.error import URLError

import cv2
import mmengine.dist as dist
from mmpretrain.datasets import CIFAR10
from mmpretrain.registry import DATASETS

EXTENSIONS = ('.jpg', '.jpeg', '.png')


# force=True: a second import of this file under another name must not be an error.
@DATASETS.register_module(force=True)
class CIFAR10Folders(CIFAR10):
    """mmpretrain's CIFAR10, which reads ``data_root/{train,test}/<class>/`` first if it exists.

    Either way an item carries ``img``, uint8 [32, 32, 3] in RGB, decoded once and kept in memory,
    so one pipeline and one data_preprocessor (to_rgb=False) serve both.

    Args:
        data_root: the folder; the pickles are downloaded into it when it holds neither layout.
        split: 'train' or 'test'.
        per_class: keep the first so many images of each class (None: all), in the order of file
            names, or of the pickles.
        download: False makes missing data an error.
        kwargs: as for mmpretrain.CIFAR10.

    Raises: FileNotFoundError if the data are neither there nor to be had; ValueError if folders
        are not CIFAR-10's ten classes, an image is not 32x32 or a class is short of per_class.
    """

    def __init__(self, data_root='', split='train', *, per_class=None, download=True, **kwargs):
        if per_class is not None and per_class < 1:
            raise ValueError(f'per_class must be at least 1 or None, got {per_class}')
        self.per_class = per_class
        super().__init__(
            data_root=os.path.expanduser(data_root), split=split, download=download, **kwargs
        )

    def load_data_list(self):
        root = Path(self.data_prefix['root'])
        if (root / self.split).is_dir():
            items = self._read_folders(root / self.split)
        else:
            items = self._read_pickles(root)
        return items if self.per_class is None else self._first_per_class(items)

    def _read_folders(self, folder):
        found = {entry.name for entry in folder.iterdir() if entry.is_dir()}
        if found != set(self.CLASSES):
            odd = ', '.join(sorted(found ^ set(self.CLASSES)))
            raise ValueError(f'{folder} must hold the ten class folders of CIFAR-10; check: {odd}')
        items = []
        for label, name in enumerate(self.CLASSES):
            files = sorted(p for p in (folder / name).iterdir() if p.suffix.lower() in EXTENSIONS)
            # Upstream counts one class after another; the sampler shuffles.
            items += [
                {'img': _read_rgb(path), 'gt_label': label} for path in files[: self.per_class]
            ]
        return items

    def _read_pickles(self, root):
        existed = root.exists()
        here = f'{root} holds neither {self.split}/<class>/ folders nor {self.base_folder}'
        if dist.is_main_process() and not self.download and not self._check_integrity():
            raise FileNotFoundError(here)
        try:
            return super().load_data_list()
        except (URLError, TimeoutError, ConnectionError) as e:
            if not existed:
                shutil.rmtree(root, ignore_errors=True)
            reason = getattr(e, 'reason', e)
            raise FileNotFoundError(f'{here}, and {self.url} did not answer ({reason})') from e

    def _first_per_class(self, items):
        kept, counts = [], [0] * len(self.CLASSES)
        for item in items:
            label = item['gt_label']
            if counts[label] < self.per_class:
                counts[label] += 1
                kept.append(item)
        short = [n for n, count in zip(self.CLASSES, counts, strict=True) if count < self.per_class]
        if short:
            raise ValueError(
                f'{self.data_prefix["root"]}: {self.split} has fewer than per_class='
                f'{self.per_class} images of {", ".join(short)}'
            )
        return kept


def _read_rgb(path):
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None or image.shape != (32, 32, 3):
        raise ValueError(f'{path} is not a readable 32x32 image')
    # OpenCV decodes to BGR, the pickles hold RGB.
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
