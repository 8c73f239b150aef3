"""The content of a COCO annotation file as typed structs, and a reader that names every mistake."""

from __future__ import annotations

import gc
import json
import re
from pathlib import Path

import msgspec

from .usage import UsageError, one_line

Flag = bool | int | None


class Image(msgspec.Struct):
    id: int
    file_name: str
    width: int
    height: int


class Category(msgspec.Struct):
    id: int
    name: str


class RunLengths(msgspec.Struct):
    """A mask as run lengths (RLE), a list of numbers or COCO's compressed string."""

    size: tuple[int, int]  # height, width
    counts: list[int] | str


class Annotation(msgspec.Struct):
    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]  # left, top, width, height
    area: float
    iscrowd: Flag = None
    ignore: Flag = None


class MaskAnnotation(Annotation):
    segmentation: list[list[float]] | RunLengths | None = None


class CocoFile(msgspec.Struct):
    """A file of which only the boxes are used. Keys that are not listed here are skipped."""

    images: list[Image]
    categories: list[Category]
    annotations: list[Annotation] = []


class CocoMaskFile(CocoFile):
    annotations: list[MaskAnnotation] = []


def read_coco(path: Path, *, masks: bool) -> CocoFile:
    """Read a COCO annotation file and check the types of its values.

    A file of the size of instances_train2017.json takes 4 s of CPU time (json.load: 23 s).

    Args:
        path: the file.
        masks: whether to read and check ``segmentation``.

    Raises: UsageError with the place of the mistake, what is there and what was wanted.
    """
    kind = CocoMaskFile if masks else CocoFile
    content = path.read_bytes()
    collecting = gc.isenabled()
    gc.disable()  # the collector visits the growing lists again and again, for 6 seconds more
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.DecodeError:
        pass
    finally:
        if collecting:
            gc.enable()
    # The slow way, for the message. It also reads NaN and Infinity, as pycocotools does.
    try:
        content = json.loads(content.decode('utf-8'))
    except (ValueError, RecursionError) as e:
        raise UsageError(f'is not JSON ({one_line(e)})') from e
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as e:
        raise UsageError(_sentence(str(e), content)) from e


def _sentence(error: str, content) -> str:
    """Say what msgspec says ('Expected `int`, got `str` - at `$.images[3].id`'), with the value."""
    wanted, _, path = error.partition(' - at ')
    path = path.strip('`').removeprefix('$').removeprefix('.')
    if not isinstance(content, dict):
        return (
            f'holds a {type(content).__name__}, but a COCO annotation file is an object with the '
            'lists images, categories, annotations (a file of detections is no ground truth)'
        )
    if match := re.search('missing required field `(.+)`', wanted):
        if not path:
            return f"has no list '{match[1]}', so it is not a COCO annotation file"
        return f"has no '{match[1]}' in {path}"
    value = content
    for key, index in re.findall(r'(\w+)|\[(\d+)\]', re.sub(r'\[(\d+)\]', r'.[\1]', path)):
        value = value[int(index)] if index else value[key]
    shown = json.dumps(value)
    shown = shown if len(shown) <= 60 else shown[:57] + '...'
    wanted = wanted.removeprefix('Expected ').split(', got')[0].replace('`', '')
    return f'has {shown} as {path}, but wanted is {wanted}'
