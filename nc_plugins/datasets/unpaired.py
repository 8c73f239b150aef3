"""Two folders of unpaired images, the training data of CycleGAN."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.logging import print_log
from mmengine.registry import DATASETS
from PIL import Image
from torch.utils.data import Dataset
from torchvision.transforms import InterpolationMode, v2

from .images import SUFFIXES, DataError, is_hidden, read_rgb


# force=True: importing this file again under another name is not an error.
@DATASETS.register_module(force=True)
class UnpairedImages(Dataset):
    """Pairs of an image of domain A and an image of domain B that do not belong together.

    In training an item has the image of A at its index and a random image of B. Both are resized to
    ``load_size`` (bicubic), cropped to ``crop_size`` at random, and flipped at random. In tests
    both images are those at the index, resized to ``crop_size``. The length is that of the larger
    domain. The index of the smaller domain wraps around.

    An item is ``{'inputs': {'A': image, 'B': image}, 'data_samples': {'A': path, 'B': path}}`` with
    uint8 RGB images [3, H, W]. Use it with mmengine's default collate function.

    Random numbers come from torch's generator. ``ReliableRunner`` seeds it for each sample.

    Args:
        data_root: Folder that contains ``folder_A`` and ``folder_B``.
        folder_A: Folder of the images of domain A, relative to ``data_root``.
        folder_B: Folder of the images of domain B, relative to ``data_root``.
        load_size: Size before the crop in pixels, for a square, or (height, width).
        crop_size: Size of an item in pixels, for a square, or (height, width).
        flip: Whether to mirror half of the training images horizontally.
        test_mode: Whether to read the images in order and without augmentation.
        skip_unreadable: Whether to replace an unreadable training image by the next readable one
            and log a warning.

    Raises:
        FileNotFoundError: If a folder does not exist.
        ValueError: If a folder contains no images, or ``crop_size`` is larger than ``load_size``.
        DataError: If an image cannot be read. The message names the file.
    """

    metainfo: dict = {}  # noqa: RUF012 (mmengine asks for it)

    def __init__(
        self,
        data_root: str,
        folder_A: str,
        folder_B: str,
        load_size: int | Sequence[int] = 286,
        crop_size: int | Sequence[int] = 256,
        flip: bool = True,
        test_mode: bool = False,
        skip_unreadable: bool = False,
    ) -> None:
        load, crop = _pair('load_size', load_size), _pair('crop_size', crop_size)
        if not test_mode and (crop[0] > load[0] or crop[1] > load[1]):
            raise ValueError(f'crop_size {crop} is larger than load_size {load}')
        self.files = {
            'A': list_images(Path(data_root, folder_A)),
            'B': list_images(Path(data_root, folder_B)),
        }
        self.test_mode, self.skip_unreadable = test_mode, skip_unreadable
        self._reported: set[Path] = set()
        augment = [] if test_mode else [v2.RandomCrop(crop), v2.RandomHorizontalFlip(flip / 2)]
        self.transform = v2.Compose(
            [
                v2.Resize(crop if test_mode else load, InterpolationMode.BICUBIC),
                *augment,
                v2.PILToTensor(),
            ]
        )

    def __len__(self) -> int:
        return max(len(files) for files in self.files.values())

    def __getitem__(self, index: int) -> dict:
        A, B = self.files['A'], self.files['B']
        place = index % len(B) if self.test_mode else int(torch.randint(len(B), ()))
        (path_A, image_A), (path_B, image_B) = self._read(A, index % len(A)), self._read(B, place)
        return {
            'inputs': {'A': self.transform(image_A), 'B': self.transform(image_B)},
            'data_samples': {'A': str(path_A), 'B': str(path_B)},
        }

    def _read(self, files: list[Path], index: int) -> tuple[Path, Image.Image]:
        for step in range(len(files)):
            path = files[(index + step) % len(files)]
            try:
                return path, read_rgb(path)
            except DataError as e:
                if self.test_mode or not self.skip_unreadable:
                    raise
                if path not in self._reported:
                    self._reported.add(path)
                    print_log(f'skipped: {e}', logger='current', level=logging.WARNING)
        raise DataError(f'none of the {len(files)} images in {files[0].parent} can be read')


def list_images(folder: Path) -> list[Path]:
    """The image files in ``folder`` in the order of their names, without subfolders."""
    if not folder.is_dir():
        raise FileNotFoundError(f'there is no image folder {folder}')
    files = []
    for path in sorted(folder.iterdir()):
        # macOS writes files such as ._0.png that are not images.
        if path.suffix.lower() not in SUFFIXES or is_hidden(path.name) or path.is_dir():
            continue
        if not path.is_file():
            raise FileNotFoundError(f'{path} is a link to a file that does not exist')
        files.append(path)
    if not files:
        raise ValueError(f'{folder} holds no images ({", ".join(SUFFIXES)})')
    return files


def _pair(name: str, size: int | Sequence[int]) -> tuple[int, int]:
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or not all(isinstance(side, int) and side > 0 for side in pair):
        raise ValueError(f'{name} must be a positive integer or (height, width), got {size!r}')
    return pair
