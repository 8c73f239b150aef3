"""Loading transforms whose errors name the image or label file.

OpenMMLab's transforms accept some broken files. Many releases of OpenCV fill the missing part of a
truncated JPEG with grey. A label map of the wrong size fails later in the loss, and a label out of
range fails in a CUDA kernel.
"""

from __future__ import annotations

import io
import logging

import mmcv
import numpy as np
from mmcv.transforms import TRANSFORMS, BaseTransform, LoadImageFromFile
from mmengine import fileio
from mmengine.logging import print_log
from PIL import Image

from .images import DataError, open_image, reason


@TRANSFORMS.register_module(force=True)
class LoadImage(LoadImageFromFile):
    """mmcv's ``LoadImageFromFile`` whose error names a file that cannot be used.

    Such a file is missing, empty, corrupt, truncated, a decompression bomb, or has pixels of 32
    bits. An image whose size differs from the ``height`` and ``width`` of its annotation file is an
    error too. 16-bit grey values are scaled from 0..65535 to 0..255.

    Pillow decodes the file, because every release of it rejects truncated files. For 8-bit JPEG and
    PNG files in colour, grey or with a palette, its pixels equal those of OpenCV, mmcv's default,
    including the EXIF orientation. For transparent grey and CMYK files they differ.

    Args:
        imdecode_backend: ``'pillow'`` or another backend of mmcv, which has none of these checks
            but that of the size.
        skip_unreadable: Whether to log a warning and return None for an unreadable file. mmengine's
            datasets then load another sample in training, and raise an error in tests.
        kwargs: Arguments of ``LoadImageFromFile``.

    Raises:
        DataError: If the file cannot be read and ``skip_unreadable`` is False, or if the size is
            not that of the annotation file.
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
            image = self._decode(fileio.get(path, backend_args=self.backend_args), path)
        except Exception as e:  # decoders raise OSError, SyntaxError, struct.error, cv2.error ...
            sentence = f'image {path} cannot be read ({reason(e)})'
            if not self.skip_unreadable:
                raise DataError(sentence) from e
            if path not in self.warned:
                self.warned.add(path)
                print_log(f'{sentence}; loading another image instead', 'current', logging.WARNING)
            return None
        size = image.shape[:2]
        labelled = (results.get('height', size[0]), results.get('width', size[1]))
        if size != labelled:
            raise DataError(
                f'image {path} has {_size(size)} pixels, but its annotation file says '
                f'{_size(labelled)}{_turned(size, labelled)}'
            )
        results['img'] = image.astype(np.float32) if self.to_float32 else image
        results['img_shape'] = results['ori_shape'] = size
        return results

    def _decode(self, content: bytes, path: str) -> np.ndarray:
        if self.imdecode_backend == 'pillow' and self.color_type in ('color', 'grayscale'):
            image = open_image(content, path)
            if image.mode != 'LA':  # mmcv has its own background for transparent grey
                array = np.array(image.convert('RGB'))[:, :, ::-1]
                return array if self.color_type == 'color' else np.array(image.convert('L'))
        image = mmcv.imfrombytes(content, flag=self.color_type, backend=self.imdecode_backend)
        if image is None:  # OpenCV's way to say it
            raise ValueError('empty, or not an image')
        return image

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
            file, contains colours instead of indices, was compressed as a JPEG, or contains
            invalid labels.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255, **kwargs) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.load = TRANSFORMS.build(dict(type='mmseg.LoadAnnotations', **kwargs))

    def transform(self, results: dict) -> dict:
        self.read(results)
        labels, path = results['gt_seg_map'], results['seg_map_path']
        if labels.shape != tuple(results['ori_shape']):
            raise DataError(
                f'label map {path} has {_size(labels.shape)} pixels, but its image '
                f'{results["img_path"]} has {_size(results["ori_shape"])}'
            )
        return results

    def read(self, results: dict) -> np.ndarray:
        """Set ``gt_seg_map`` without a look at the image, and return the labels that occur."""
        path = results['seg_map_path']
        try:
            content = fileio.get(path, backend_args=self.load.backend_args)
            _check_label_file(Image.open(io.BytesIO(content)), path)
            self.load(results)
        except DataError:
            raise
        except Exception as e:  # as in LoadImage
            raise DataError(f'label map {path} cannot be read ({reason(e)})') from e
        present = np.flatnonzero(np.bincount(results['gt_seg_map'].ravel(), minlength=256))
        invalid = present[(present >= self.num_classes) & (present != self.ignore_index)]
        if invalid.size:
            raise DataError(
                f'label map {path} contains the labels {", ".join(map(str, invalid))}, but only '
                f'0 to {self.num_classes - 1} and {self.ignore_index} (ignored) are valid'
            )
        return present

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(num_classes={self.num_classes}, '
            f'ignore_index={self.ignore_index}, load={self.load})'
        )


def _check_label_file(image: Image.Image, path: str) -> None:
    """Refuse a file whose pixels are not class indices. mmseg keeps the lower 8 bits of each."""
    if image.format == 'JPEG':
        raise DataError(f'label map {path} is a JPEG, which changes labels; save it as PNG')
    if image.mode == 'F':
        raise DataError(f'label map {path} has floating point numbers instead of class indices')
    if len(image.getbands()) > 1:
        raise DataError(
            f'label map {path} has {len(image.getbands())} channels instead of one channel of '
            'class indices (a PNG of mode P or L)'
        )
    if image.mode.startswith('I'):
        values = np.asarray(image)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 255:
            raise DataError(
                f'label map {path} contains the label {high if high > 255 else low} in its '
                '16 or 32 bits, but labels are 0 to 255'
            )


def _size(shape) -> str:
    return f'{shape[1]}x{shape[0]}'


def _turned(size: tuple, labelled: tuple) -> str:
    if size[::-1] != labelled:
        return ''
    return (
        ' (perhaps the EXIF tag that turns the image was not read when it was labelled: label the '
        'turned image, or remove the tag)'
    )
