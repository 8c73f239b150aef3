"""Transforms that name the file when an image or a label map cannot be used.

Upstream passes some broken files on without a word: many releases of OpenCV fill what a truncated
JPEG lacks with grey, a label map of another size surfaces in a loss far away, and a label out of
range in CUDA.
"""

from __future__ import annotations

import logging

import numpy as np
from mmcv.transforms import TRANSFORMS, BaseTransform, LoadImageFromFile
from mmengine.logging import print_log
from PIL import UnidentifiedImageError


class DataError(ValueError):
    """A data file cannot be used. The message is one sentence that names the file."""

    @property
    def sentence(self) -> str:
        """The sentence alone; a DataLoader worker's error carries the worker's traceback too."""
        return str(self).rpartition(f'{type(self).__name__}: ')[2].strip()


@TRANSFORMS.register_module(force=True)
class LoadImage(LoadImageFromFile):
    """mmcv's LoadImageFromFile that reports a missing, empty, corrupt or truncated file by name.

    Pillow decodes by default because it refuses truncated files, whatever its release. Its pixels
    are those of OpenCV, mmcv's default, for 8-bit JPEG and PNG in colour, grey or palette, EXIF
    orientation included; for 16-bit grey, transparent grey or CMYK images they are not.

    Args:
        imdecode_backend: 'pillow', or another of mmcv's. With 'cv2' it depends on the release of
            OpenCV whether truncated files are seen.
        skip_unreadable: True warns once a file and process and returns None instead of raising, so
            that a training set takes another sample at random. A test set raises on None.
        kwargs: of mmcv's LoadImageFromFile.

    Raises: DataError for a file that cannot be read, unless ``skip_unreadable``.
    """

    def __init__(
        self, *, imdecode_backend: str = 'pillow', skip_unreadable: bool = False, **kwargs
    ) -> None:
        super().__init__(imdecode_backend=imdecode_backend, **kwargs)
        self.skip_unreadable = skip_unreadable
        self.warned: set[str] = set()

    def transform(self, results: dict) -> dict | None:
        path = results['img_path']
        try:
            return super().transform(results)
        except Exception as e:  # decoders raise OSError, SyntaxError, struct.error, cv2.error ...
            sentence = f'image {path} cannot be read ({_reason(e)})'
            if not self.skip_unreadable:
                raise DataError(sentence) from e
        if path not in self.warned:
            self.warned.add(path)
            print_log(f'{sentence}; another one takes its place', 'current', logging.WARNING)
        return None

    def __repr__(self) -> str:
        return f'{super().__repr__()[:-1]}, skip_unreadable={self.skip_unreadable})'


@TRANSFORMS.register_module(force=True)
class LoadSegMap(BaseTransform):
    """mmseg's LoadAnnotations that reports a label map which does not fit its image by name.

    Works wherever mmseg's stands, before a resize of the image or after it, and fills in the same
    ``gt_seg_map`` [height, width] of uint8.

    Args:
        num_classes: labels are 0 .. num_classes - 1, after reduce_zero_label and label_map.
        ignore_index: the one other label.
        kwargs: of mmseg's LoadAnnotations.

    Raises: DataError for a label map that is missing, corrupt or truncated, has another size than
        the image file, has colours instead of indices, or holds other labels. Of a 16-bit file
        mmseg reads the lower eight bits, before they can be checked here.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255, **kwargs) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.load = TRANSFORMS.build(dict(type='mmseg.LoadAnnotations', **kwargs))

    def transform(self, results: dict) -> dict:
        path = results['seg_map_path']
        try:
            results = self.load(results)
        except Exception as e:  # as in LoadImage
            raise DataError(f'label map {path} cannot be read ({_reason(e)})') from e
        labels = results['gt_seg_map']
        if labels.ndim != 2:
            raise DataError(
                f'label map {path} has {labels.shape[-1]} channels, one channel of class indices '
                'is wanted (a PNG of mode P or L)'
            )
        if labels.shape != tuple(results['ori_shape']):
            raise DataError(
                f'label map {path} is {_size(labels.shape)} and its image {results["img_path"]} '
                f'is {_size(results["ori_shape"])}'
            )
        present = np.flatnonzero(np.bincount(labels.ravel(), minlength=256))
        strange = present[(present >= self.num_classes) & (present != self.ignore_index)]
        if strange.size:
            raise DataError(
                f'label map {path} holds the labels {", ".join(map(str, strange))}, only 0 to '
                f'{self.num_classes - 1} and {self.ignore_index} (ignored) are wanted'
            )
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(num_classes={self.num_classes}, '
            f'ignore_index={self.ignore_index}, load={self.load})'
        )


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return 'there is no such file'
    if isinstance(error, UnidentifiedImageError):
        return 'empty, or not an image'
    return f'{type(error).__name__}: {" ".join(str(error).split())}'


def _size(shape) -> str:
    return f'{shape[1]}x{shape[0]}'
