"""CIFAR-10 from class folders or from the original files."""

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
        download: Whether to download missing data.
        kwargs: Arguments of ``mmpretrain.datasets.CIFAR10``.

    Raises:
        FileNotFoundError: If the data is missing and cannot be downloaded.
        ValueError: If the folders are not the ten classes of CIFAR-10, an image does not have
            32x32 pixels, or a class has fewer images than ``per_class``.
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
            raise ValueError(
                f'{folder} must contain the ten class folders of CIFAR-10; '
                f'missing or unknown: {odd}'
            )
        items = []
        for label, name in enumerate(self.CLASSES):
            files = sorted(p for p in (folder / name).iterdir() if p.suffix.lower() in EXTENSIONS)
            # In the order of the classes; the sampler shuffles.
            items += [
                {'img': _read_rgb(path), 'gt_label': label} for path in files[: self.per_class]
            ]
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
    # OpenCV decodes to BGR. The pickle files contain RGB.
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
