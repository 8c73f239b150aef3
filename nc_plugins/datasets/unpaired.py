"""Two folders of images with no pairs between them, as CycleGAN trains on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.logging import print_log
from mmengine.registry import DATASETS
from PIL import Image, ImageOps
from torch.utils.data import Dataset, get_worker_info
from torchvision.transforms import InterpolationMode, v2

from .loading import DataError

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')


# force=True: a second import of this file under another name must not be an error.
@DATASETS.register_module(force=True)
class UnpairedImages(Dataset):
    """Images of domain A beside images of domain B.

    Training (``test_mode=False``): A in order, which the sampler shuffles, B drawn at random, each
    resized to ``load_size`` (bicubic), cropped to ``crop_size`` at random and flipped by chance.
    Testing: both in order, resized to ``crop_size``. The set is as long as the larger domain; the
    smaller one starts again at its end.

    An item is ``{'inputs': {'A': image, 'B': image}, 'data_samples': {'A': path, 'B': path}}`` with
    images uint8 [3, H, W], RGB; batch it with mmengine's default collate function.

    Random numbers are torch's. In the main process ``randomness.seed`` governs them; a worker
    takes the seed that its DataLoader drew for it, so that the draws of no two epochs are alike
    (with mmengine's seed those of all would be).

    Args:
        data_root: the folder of the domains' folders.
        folder_A, folder_B: within ``data_root``.
        load_size, crop_size: a side of a square or (height, width), in pixels.
        flip: mirror half of the training images, left to right.
        skip_unreadable: in training take the next readable image in place of a broken one, and log
            the file once.

    Raises:
        FileNotFoundError: a domain's folder is not there.
        ValueError: it holds no images, or a crop is larger than what it is cut from.
        DataError: an image cannot be read; the message names the file.
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
            raise ValueError(f'crop_size {crop} does not fit into load_size {load}')
        self.files = {
            'A': list_images(Path(data_root, folder_A)),
            'B': list_images(Path(data_root, folder_B)),
        }
        self.test_mode, self.skip_unreadable = test_mode, skip_unreadable
        self._reported: set[Path] = set()
        self._worker_seed = None
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
        self._seed_worker()
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
        raise DataError(f'not one of the {len(files)} images of {files[0].parent} can be read')

    def _seed_worker(self) -> None:
        worker = get_worker_info()
        if worker is not None and self._worker_seed != worker.seed:
            self._worker_seed = worker.seed
            torch.manual_seed(worker.seed)


def list_images(folder: Path) -> list[Path]:
    """The images of ``folder`` by name; not those of folders within."""
    if not folder.is_dir():
        raise FileNotFoundError(f'there is no image folder {folder}')
    files = sorted(
        path
        for path in folder.iterdir()
        # A name with a dot in front is no picture, but what macOS writes beside one.
        if path.suffix.lower() in SUFFIXES and not path.name.startswith('.') and path.is_file()
    )
    if not files:
        raise ValueError(f'{folder} holds no images ({", ".join(SUFFIXES)})')
    return files


def read_rgb(path: Path) -> Image.Image:
    """Decode the whole of an image file; DataError if it is missing, no image, or cut short."""
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert('RGB')
    # SyntaxError is Pillow's word for a broken PNG.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
        raise DataError(f'{path} cannot be read as an image ({e})') from e


def _pair(name: str, size: int | Sequence[int]) -> tuple[int, int]:
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or not all(isinstance(side, int) and side > 0 for side in pair):
        raise ValueError(f'{name} wants a positive integer or two (height, width), got {size!r}')
    return pair
