"""The rules of a COCO annotation file that go beyond the types of its values."""

from __future__ import annotations

import math

from .coco_schema import Annotation, CocoFile, Image, MaskAnnotation, RunLengths
from .usage import UsageError


def check_entries(content: CocoFile) -> None:
    """Check ids, references, sizes, boxes and masks.

    Raises: UsageError with the list, the index and the key of the first mistake.
    """
    if not content.images:
        raise UsageError("lists no images: its 'images' is empty")
    for name in ('images', 'annotations', 'categories'):
        _check_unique(name, 'id', [entry.id for entry in getattr(content, name)])
    _check_unique('categories', 'name', [category.name for category in content.categories])
    for index, image in enumerate(content.images):
        for key in ('width', 'height'):
            if getattr(image, key) < 1:
                _fail('images', index, key, getattr(image, key), 'a number of pixels')
    images = {image.id: image for image in content.images}
    categories = {category.id for category in content.categories}
    for index, annotation in enumerate(content.annotations):
        _check_annotation(index, annotation, images, categories)


def check_first_id(annotations: list[Annotation]) -> None:
    """Check a file that pycocotools evaluates: it uses 0 for 'no match'."""
    for index, annotation in enumerate(annotations):
        if annotation.id == 0:
            raise UsageError(
                f'has 0 as annotations[{index}].id, and pycocotools counts an object with the id 0 '
                'as missed even if it is found, which lowers AP: number the annotations from 1'
            )


def _check_unique(name: str, key: str, values: list) -> None:
    if len(set(values)) == len(values):
        return
    first: dict = {}
    for index, value in enumerate(values):
        if value in first:
            raise UsageError(
                f'has the {key} {value!r} twice in {name}, at [{first[value]}] and [{index}], but '
                f'every {key} must be unique'
            )
        first[value] = index


def _check_annotation(
    index: int, annotation: Annotation, images: dict[int, Image], categories: set[int]
) -> None:
    image = images.get(annotation.image_id)
    if image is None:
        _fail('annotations', index, 'image_id', annotation.image_id, 'the id of one of the images')
    if annotation.category_id not in categories:
        wanted = 'the id of one of the categories'
        _fail('annotations', index, 'category_id', annotation.category_id, wanted)
    if not math.isfinite(annotation.area):
        _fail('annotations', index, 'area', annotation.area, 'a finite number')
    box = annotation.bbox
    if not math.isfinite(sum(box)) or box[2] < 0 or box[3] < 0:
        wanted = 'left, top, width and height, four finite numbers, the last two not negative'
        _fail('annotations', index, 'bbox', list(box), wanted)
    if isinstance(annotation, MaskAnnotation) and annotation.segmentation is not None:
        if isinstance(annotation.segmentation, RunLengths):
            _check_runs(index, annotation.segmentation, image)
        else:
            _check_polygons(index, annotation.segmentation)


def _check_polygons(index: int, polygons: list[list[float]]) -> None:
    for number, polygon in enumerate(polygons):
        if len(polygon) < 6 or len(polygon) % 2 or not math.isfinite(sum(polygon)):
            finite = len(polygon) < 6 or len(polygon) % 2
            came = f'{len(polygon)} numbers' if finite else 'a number that is not finite'
            raise UsageError(
                f'has {came} in annotations[{index}].segmentation[{number}], but a polygon is '
                'x1, y1, x2, y2, ..., an even count of at least six finite numbers'
            )


def _check_runs(index: int, runs: RunLengths, image: Image) -> None:
    size = (image.height, image.width)
    if runs.size != size:
        wanted = f'the height and width of its image {image.file_name}, {list(size)}'
        _fail('annotations', index, 'segmentation.size', list(runs.size), wanted)
    try:
        counts = _decompress(runs.counts) if isinstance(runs.counts, str) else runs.counts
    except IndexError:
        counts = [-1]
    if min(counts, default=0) < 0 or sum(counts) != size[0] * size[1]:
        raise UsageError(
            f'has run lengths in annotations[{index}].segmentation.counts that cover '
            f'{sum(counts) if min(counts, default=0) >= 0 else "a negative number of"} pixels, '
            f'but its image {image.file_name} has {size[0] * size[1]}'
        )


def _decompress(text: str) -> list[int]:
    """Read COCO's compressed run lengths, as rleFrString of pycocotools does.

    A number is a sequence of characters with 5 bits each, the lowest first. From the fourth number
    on it is the difference to the number two places before.
    """
    runs: list[int] = []
    place = 0
    while place < len(text):
        value = shift = 0
        more = True
        while more:
            bits = ord(text[place]) - 48
            value |= (bits & 31) << shift
            more, place, shift = bits & 32, place + 1, shift + 5
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs


def _fail(name: str, index: int, key: str, value, wanted: str) -> None:
    raise UsageError(f'has {value!r} as {name}[{index}].{key}, but wanted is {wanted}')
