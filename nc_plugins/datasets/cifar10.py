"""CIFAR-10 from class folders or from the original files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from urllib.error import URLError

import mmengine.dist as dist
import numpy as np
from mmpretrain.datasets import CIFAR10
from mmpretrain.registry import DATASETS

from .images import DataError, is_hidden, read_rgb

EXTENSIONS = ('.jpg', '.jpeg', '.png')


# force=True: importing this file again under another name is not an error.
@DATASETS.register_module(force=True)
class CIFAR10Folders(CIFAR10):
    """mmpretrain's ``CIFAR10`` that also reads image files in class folders.

    It reads the image files ``data_root/{train,test}/<class>/*`` if the folder of the split exists,
    and the original pickle files otherwise. The images are decoded once and stay in memory. The
    ``img`` of an item is uint8 [32, 32, 3] in RGB, so set ``to_rgb=False`` in the preprocessor.

    Args:
        data_root: Folder with either layout. If it has neither, CIFAR-10 is downloaded into it.
        split: ``'train'`` or ``'test'``.
        per_class: Number of images of each class to use, in the order of the files. Default: all.
        skip: Number of images of each class to leave out before that, such as those that another
            dataset of the same split uses.
        download: Whether to download missing data.
        kwargs: Arguments of ``mmpretrain.datasets.CIFAR10``.

    Raises:
        FileNotFoundError: If the data is missing and cannot be downloaded.
        ValueError: If the folders are not the ten classes of CIFAR-10, or a class has fewer images
            than ``skip + per_class``.
        DataError: If an image cannot be read or does not have 32x32 pixels.
    """

    def __init__(
        self, data_root='', split='train', *, per_class=None, skip=0, download=True, **kwargs
    ):
        if per_class is not None and per_class < 1:
            raise ValueError(f'per_class must be at least 1 or None, got {per_class}')
        if skip < 0:
            raise ValueError(f'skip must be at least 0, got {skip}')
        self.per_class = per_class
        self.skip = skip
        super().__init__(
            data_root=os.path.expanduser(data_root), split=split, download=download, **kwargs
        )

    def load_data_list(self):
        root = Path(self.data_prefix['root'])
        if (root / self.split).is_dir():
            items = self._read_folders(root / self.split)
        else:
            items = self._read_pickles(root)
        return self._of_each_class(items) if self.per_class or self.skip else items

    def _read_folders(self, folder):
        found = {p.name for p in folder.iterdir() if p.is_dir() and not is_hidden(p.name)}
        if found != set(self.CLASSES):
            odd = ', '.join(sorted(found ^ set(self.CLASSES)))
            raise ValueError(
                f'{folder} must contain the ten class folders of CIFAR-10; '
                f'missing or unknown: {odd}'
            )
        items = []
        for label, name in enumerate(self.CLASSES):
            files = sorted(
                path
                for path in (folder / name).iterdir()
                if path.suffix.lower() in EXTENSIONS and not is_hidden(path.name)
            )
            # In the order of the classes; the sampler shuffles.
            items += [{'img': _read_rgb(path), 'gt_label': label} for path in files[: self._end]]
        return items

    def _read_pickles(self, root):
        existed = root.exists()
        missing = f'{root} contains neither {self.split}/<class>/ folders nor {self.base_folder}'
        if dist.is_main_process() and not self.download and not self._check_integrity():
            raise FileNotFoundError(missing)
        try:
            return super().load_data_list()
        except (URLError, TimeoutError, ConnectionError) as e:
            if not existed:
                shutil.rmtree(root, ignore_errors=True)
            reason = getattr(e, 'reason', e)
            raise FileNotFoundError(
                f'{missing}, and the download of {self.url} failed ({reason})'
            ) from e

    @property
    def _end(self):
        """Number of images of each class that are read, with those that are left out."""
        return None if self.per_class is None else self.skip + self.per_class

    def _of_each_class(self, items):
        kept, counts = [], [0] * len(self.CLASSES)
        for item in items:
            label = item['gt_label']
            if self.skip <= counts[label] < (self._end or len(items)):
                kept.append(item)
            counts[label] += 1
        needed = self._end or self.skip + 1
        short = [n for n, count in zip(self.CLASSES, counts, strict=True) if count < needed]
        if short:
            raise ValueError(
                f'{self.data_prefix["root"]}: {self.split} has fewer than {needed} images of '
                f'{", ".join(short)}, which skip={self.skip} and per_class={self.per_class} need'
            )
        return kept


def _read_rgb(path):
    image = read_rgb(path)
    if image.size != (32, 32):
        raise DataError(f'image {path} has {image.width}x{image.height} pixels, expected 32x32')
    return np.array(image)
