"""Finding and decoding image files, the same way for every task."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath

import numpy as np
from mmengine.fileio import LocalBackend, register_backend
from mmengine.fileio.io import backend_instances
from mmengine.logging import print_log
from PIL import Image, ImageOps, UnidentifiedImageError

# Of files that are read.
SUFFIXES = ('.bmp', '.jfif', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')


class DataError(ValueError):
    """A data file cannot be used. The message is one sentence and names the file."""

    @property
    def sentence(self) -> str:
        """The message without the traceback that a worker of a DataLoader adds to it."""
        return str(self).rpartition(f'{type(self).__name__}: ')[2].strip()


class VisibleFiles(LocalBackend):
    """mmengine's backend for local files that leaves out hidden folders.

    mmengine leaves out hidden files only. The pictures in .ipynb_checkpoints would become a class.
    """

    def list_dir_or_file(self, dir_path, *args, **kwargs) -> Iterator[str]:
        for name in super().list_dir_or_file(dir_path, *args, **kwargs):
            if not is_hidden(name):
                yield name


def leave_out_hidden_folders() -> None:
    """Let all datasets of OpenMMLab in this process list local folders with ``VisibleFiles``."""
    register_backend('local', VisibleFiles, force=True, prefixes='')
    backend_instances.clear()  # mmengine would go on with the backend that it made before


def is_hidden(path: str | PurePath) -> bool:
    """True if a part of the relative ``path`` is hidden, or a folder that macOS puts into zips."""
    return any(part.startswith('.') or part == '__MACOSX' for part in PurePath(path).parts)


def warn_of_unread_images(folder: Path, is_read: Callable[[str], bool], where: str) -> None:
    """Warn of images in ``folder`` or its subfolders whose names a dataset does not read."""
    unread = []
    for root, _, names in os.walk(folder):
        for name in names:
            is_image = name.lower().endswith((*SUFFIXES, '.avif', '.gif', '.heic'))
            path = Path(root, name)
            if is_image and not is_read(name) and not is_hidden(path.relative_to(folder)):
                unread.append(path)
    if unread:
        print_log(
            f'{where}: {len(unread)} images in {folder} (the first is {min(unread)}) are not read, '
            'because the dataset reads files with other suffixes',
            'current',
            logging.WARNING,
        )


def missing_files(folder: Path, names: list[str]) -> list[str]:
    """Those of ``names`` that are not in ``folder`` or its subfolders."""
    # One listing for each folder, because 118,287 calls of exists() are slow on a network disk.
    present = {
        parent: set(os.listdir(folder / parent)) if (folder / parent).is_dir() else set()
        for parent in {os.path.dirname(name) for name in names}
    }
    return [n for n in names if os.path.basename(n) not in present[os.path.dirname(n)]]


def open_image(content: bytes, path: str) -> Image.Image:
    """Open an image and turn it as its EXIF tag says. Its mode has 8 bits.

    16-bit grey values are divided by 257, which maps 65535 to 255, with one warning in a process.

    Raises:
        ValueError: If the pixels are 32-bit integers or floating point numbers, whose range is
            not known. Pillow raises other errors for broken files and decompression bombs.
    """
    image = Image.open(io.BytesIO(content))
    # Pillow opens some 16-bit files with 32 bits.
    if image.mode.startswith('I;16') or (image.mode == 'I' and image.format in ('PNG', 'PPM')):
        if not _warned:
            _warned.append(path)
            print_log(
                f'image {path} has 16 bits: its values 0 to 65535 are scaled to 0 to 255, here and '
                'in other 16-bit images',
                'current',
                logging.WARNING,
            )
        image = ImageOps.exif_transpose(image)
        return Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    if image.mode in ('I', 'F') or image.mode.startswith('I;'):
        kind = 'floating point' if image.mode == 'F' else '32-bit integer'
        raise ValueError(f'its pixels are {kind} numbers; convert it to 8 bits')
    return ImageOps.exif_transpose(image)


_warned: list[str] = []  # by one process


def reason(error: Exception) -> str:
    """Why a file cannot be read, from the exception of a decoder."""
    if isinstance(error, FileNotFoundError):
        return 'there is no such file'
    if isinstance(error, UnidentifiedImageError):
        return 'empty, or not an image'
    text = ' '.join(str(error).split())
    return text if type(error) is ValueError else f'{type(error).__name__}: {text}'


def read_rgb(path: str | Path) -> Image.Image:
    """Decode an image file to RGB.

    Raises:
        DataError: If the file is missing, truncated, or not an image.
    """
    try:
        return open_image(Path(path).read_bytes(), str(path)).convert('RGB')
    # Pillow raises SyntaxError for a broken PNG.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
        raise DataError(f'image {path} cannot be read ({reason(e)})') from e
