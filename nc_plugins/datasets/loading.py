"""Loading transforms whose errors name the image or label file.

OpenMMLab's transforms accept some broken files. Many releases of OpenCV fill the missing part of a
truncated JPEG with grey. A label map of the wrong size fails later in the loss, and a label out of
range fails in a CUDA kernel.
"""

from __future__ import annotations

import logging

import numpy as np
from mmcv.transforms import TRANSFORMS, BaseTransform, LoadImageFromFile
from mmengine.logging import print_log
from PIL import UnidentifiedImageError


class DataError(ValueError):
    """A data file cannot be used. The message is one sentence and names the file."""

    @property
    def sentence(self) -> str:
        """The message without the traceback that a worker of a DataLoader adds to it."""
        return str(self).rpartition(f'{type(self).__name__}: ')[2].strip()


@TRANSFORMS.register_module(force=True)
class LoadImage(LoadImageFromFile):
    """mmcv's ``LoadImageFromFile`` whose error names a missing, empty, corrupt or truncated file.

    The default decoder is Pillow, because every release rejects truncated files. For 8-bit JPEG and
    PNG files in colour, grey or with a palette, its pixels equal those of OpenCV, mmcv's default,
    including the EXIF orientation. For 16-bit grey, transparent grey and CMYK files they differ.

    Args:
        imdecode_backend: ``'pillow'`` or another backend of mmcv. Some releases of OpenCV
            (``'cv2'``) accept truncated files.
        skip_unreadable: Whether to log a warning and return None for an unreadable file. mmengine's
            datasets then load another sample in training, and raise an error in tests.
        kwargs: Arguments of ``LoadImageFromFile``.

    Raises:
        DataError: If the file cannot be read and ``skip_unreadable`` is False.
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
            print_log(f'{sentence}; loading another image instead', 'current', logging.WARNING)
        return None

    def __repr__(self) -> str:
        return f'{super().__repr__()[:-1]}, skip_unreadable={self.skip_unreadable})'


@TRANSFORMS.register_module(force=True)
class LoadSegMap(BaseTransform):
    """mmseg's ``LoadAnnotations`` with a check of the label map.

    It replaces mmseg's transform before or after a resize of the image. It sets the same key,
    ``gt_seg_map``, uint8 [height, width].

    Args:
        num_classes: Number of classes. Valid labels are 0 to ``num_classes - 1``, after
            ``reduce_zero_label`` and ``label_map``.
        ignore_index: The label of ignored pixels, which is also valid.
        kwargs: Arguments of ``LoadAnnotations``.

    Raises:
        DataError: If the label map is missing, corrupt or truncated, differs in size from the image
            file, contains colours instead of indices, or contains invalid labels. Labels above 255
            in a 16-bit file are not detected, because mmseg reads only the lower eight bits.
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
                f'label map {path} has {labels.shape[-1]} channels instead of one channel of class '
                'indices (a PNG of mode P or L)'
            )
        if labels.shape != tuple(results['ori_shape']):
            raise DataError(
                f'label map {path} has {_size(labels.shape)} pixels, but its image '
                f'{results["img_path"]} has {_size(results["ori_shape"])}'
            )
        present = np.flatnonzero(np.bincount(labels.ravel(), minlength=256))
        invalid = present[(present >= self.num_classes) & (present != self.ignore_index)]
        if invalid.size:
            raise DataError(
                f'label map {path} contains the labels {", ".join(map(str, invalid))}, but only '
                f'0 to {self.num_classes - 1} and {self.ignore_index} (ignored) are valid'
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
