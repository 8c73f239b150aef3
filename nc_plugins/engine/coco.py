"""Checks a COCO annotation file for mistakes that mmdet reports late or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from .usage import UsageError, is_first_process, listed, one_line


def check_coco(dataset: dict, cls: type | None, where: str, metrics: Iterable[dict] = ()) -> None:
    """Check the annotation file of a local mmdet CocoDataset, and that its images exist.

    Not checked: other dataset classes, subclasses with their own ``load_data_list``, and files
    behind a file client. Only rank 0 checks. The 450 MB of the official file take ten seconds.

    Args:
        dataset: config of one dataset, whose ``ann_file`` and image folder exist.
        cls: the class of ``dataset['type']``.
        where: first word of the messages, such as 'train_dataloader'.
        metrics: configs of the metrics that evaluate this dataset.

    Raises: UsageError with the file, the mistake and the remedy.
    """
    path, folder = _local(dataset, cls)
    if path is None or not is_first_process():
        return
    try:
        content = _read(path)
        kept = _kept(content, _category_ids(content, dataset, cls), dataset)
        _check_masks(kept, dataset, metrics)
        _check_images(content['images'], folder)
    except UsageError as e:
        raise UsageError(f'{where}: {path} {e}') from e


def _local(dataset: dict, cls: type | None) -> tuple[Path | None, Path | None]:
    """The annotation file and the image folder, or None for a dataset that is not checked."""
    base = next((c for c in getattr(cls, '__mro__', ()) if c.__name__ == 'CocoDataset'), None)
    if base is None or cls.load_data_list is not base.load_data_list:
        return None, None
    root, prefix = dataset.get('data_root') or '', dataset.get('data_prefix') or {}
    parts = [root, dataset.get('ann_file') or '', prefix.get('img') or '']
    if not parts[1] or dataset.get('backend_args') or any('://' in part for part in parts):
        return None, None
    root = Path(root).expanduser()
    return root / parts[1], root / parts[2]


def _read(path: Path) -> dict:
    try:
        with path.open(encoding='utf-8') as file:
            content = json.load(file)
    except (ValueError, RecursionError) as e:  # from JSON or UTF-8
        raise UsageError(f'is not JSON ({one_line(e)})') from e
    required = {
        'images': ('id', 'file_name', 'height', 'width'),
        'categories': ('id', 'name'),
        'annotations': ('id', 'image_id', 'category_id', 'bbox', 'area'),
    }
    if not isinstance(content, dict):
        raise UsageError(
            f'holds a {type(content).__name__}, but a COCO annotation file is an object with the '
            f'lists {", ".join(required)} (a file of detections is no ground truth)'
        )
    # COCO's test sets have no annotations, and mmdet allows that.
    content.setdefault('annotations', [])
    for name, keys in required.items():
        entries = content.get(name)
        if not isinstance(entries, list):
            raise UsageError(f"has no list '{name}', so it is not a COCO annotation file")
        for number, entry in enumerate(entries):
            missing = [key for key in keys if not isinstance(entry, dict) or key not in entry]
            if missing:
                raise UsageError(f"has no '{missing[0]}' in {name}[{number}]")
    if not content['images']:
        raise UsageError("lists no images: its 'images' is empty")
    return content


def _category_ids(content: dict, dataset: dict, cls: type) -> set:
    """The ids of the categories in the dataset's ``classes``.

    mmdet numbers the labels in the order of the file. A class that is not in the file shifts the
    labels of the classes after it, without an error.
    """
    classes = list(cls._load_metainfo(dataset.get('metainfo')).get('classes') or ())
    names = [category['name'] for category in content['categories']]
    found = [name for name in names if name in classes]
    fix = f'set metainfo=dict(classes=({_some(names)})) of the dataset'
    if classes and not found:
        raise UsageError(
            f'has none of the {len(classes)} classes ({_some(classes)}) among its '
            f'{len(names)} categories, so there is nothing to learn: {fix}'
        )
    if missing := [name for name in classes if name not in names]:
        raise UsageError(
            f'has no category for {len(missing)} of the {len(classes)} classes '
            f'({_some(missing)}), which shifts the labels of the others: {fix}'
        )
    if found != classes:
        raise UsageError(
            f'has its categories in another order than the classes ({_some(classes)}), so labels '
            f'would get wrong names: {fix}'
        )
    return {category['id'] for category in content['categories'] if category['name'] in classes}


def _kept(content: dict, ids: set, dataset: dict) -> list[dict]:
    """The annotations that mmdet keeps."""
    kept = [
        annotation
        for annotation in content['annotations']
        if annotation['category_id'] in ids
        and not annotation.get('ignore')
        and annotation['area'] > 0
        and min(annotation['bbox'][2:]) >= 1
    ]
    if not kept and not dataset.get('test_mode'):
        raise UsageError(
            f'has no object to train on: of its {len(content["annotations"])} annotations none '
            'belongs to the classes and is at least one pixel wide and high'
        )
    return kept


def _check_masks(kept: list[dict], dataset: dict, metrics: Iterable[dict]) -> None:
    loads = [step for step in dataset.get('pipeline') or () if step.get('with_mask')]
    evaluated = any('segm' in listed(metric.get('metric')) for metric in metrics)
    no_mask = [annotation for annotation in kept if not annotation.get('segmentation')]
    if no_mask and (loads or evaluated):
        reason, fix = (
            ('the pipeline loads masks', 'with_mask=False there')
            if loads
            else ("the evaluator measures 'segm'", "metric='bbox' there")
        )
        raise UsageError(
            f"has no 'segmentation' in {len(no_mask)} of {len(kept)} annotations (the first has "
            f'id {no_mask[0]["id"]}), but {reason}: use a file with masks, or set {fix} and train '
            'a model without a mask head'
        )
    if any(not step.get('poly2mask', True) for step in loads):
        rle = [a for a in kept if isinstance(a['segmentation'], dict) and not a.get('iscrowd')]
        if rle:
            raise UsageError(
                f'has run-length masks in {len(rle)} annotations (the first has id '
                f'{rle[0]["id"]}), which LoadAnnotations with poly2mask=False ignores: set '
                'poly2mask=True'
            )


def _check_images(images: list[dict], folder: Path) -> None:
    names = [image['file_name'] for image in images]
    # One listing for each folder, because 118,287 calls of exists() are slow on a network disk.
    present = {
        parent: set(os.listdir(folder / parent)) if (folder / parent).is_dir() else set()
        for parent in {os.path.dirname(name) for name in names}
    }
    missing = [n for n in names if os.path.basename(n) not in present[os.path.dirname(n)]]
    if missing:
        raise UsageError(
            f'lists {len(names)} images, and {len(missing)} of them are not in {folder} (the first '
            f'is {missing[0]}): set data_prefix=dict(img=...) to their folder, or complete it'
        )


def _some(names: list) -> str:
    shown = ', '.join(repr(name) for name in names[:10])
    return f'{shown}, ...' if len(names) > 10 else shown + (',' if len(names) == 1 else '')
