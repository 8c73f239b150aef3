"""Mistakes in a COCO annotation file that mmdet meets late, or trains on without a word."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from .usage import UsageError, is_first_process, one_line


def check_coco(dataset: dict, cls: type | None, where: str, metrics: Iterable[dict] = ()) -> None:
    """Read the annotation file of a local mmdet CocoDataset and look for its images.

    Anything else is left alone: another class, one that reads its file in a way of its own, a file
    behind a file client. Only rank 0 reads; the official 450 MB take it some ten seconds.

    Args:
        dataset: config of one dataset; its ``ann_file`` and image folder are known to exist.
        cls: the class that ``dataset['type']`` means.
        where: begins the messages, such as 'train_dataloader'.
        metrics: configs of the metrics that evaluate this dataset.

    Raises: UsageError that names the file, what is wrong in it and what to do.
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
    """The annotation file and the image folder, None if this module cannot judge them."""
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
    except (ValueError, RecursionError) as e:  # of JSON or of UTF-8
        raise UsageError(f'is not JSON ({one_line(e)})') from e
    wanted = {
        'images': ('id', 'file_name', 'height', 'width'),
        'categories': ('id', 'name'),
        'annotations': ('id', 'image_id', 'category_id', 'bbox', 'area'),
    }
    if not isinstance(content, dict):
        raise UsageError(
            f'holds a {type(content).__name__}, an object with the lists {", ".join(wanted)} is '
            'wanted, as in COCO (a file of detections cannot serve as ground truth)'
        )
    # mmdet allows no annotations, as in COCO's test sets.
    content.setdefault('annotations', [])
    for name, keys in wanted.items():
        entries = content.get(name)
        if not isinstance(entries, list):
            raise UsageError(f"has no list '{name}', so it is no COCO annotation file")
        for number, entry in enumerate(entries):
            lost = [key for key in keys if not isinstance(entry, dict) or key not in entry]
            if lost:
                raise UsageError(f"has no '{lost[0]}' in {name}[{number}]")
    if not content['images']:
        raise UsageError("lists no images: its 'images' is empty")
    return content


def _category_ids(content: dict, dataset: dict, cls: type) -> set:
    """Ids of the categories that the dataset's classes name.

    Label i is the i-th of them in the file's order; mmdet drops a class that the file does not
    have and shifts the labels of those after it.
    """
    classes = list(cls._load_metainfo(dataset.get('metainfo')).get('classes') or ())
    names = [category['name'] for category in content['categories']]
    found = [name for name in names if name in classes]
    fix = f'set metainfo=dict(classes=({_some(names)})) of the dataset'
    if classes and not found:
        raise UsageError(
            f'has none of the {len(classes)} classes ({_some(classes)}) among its '
            f'{len(names)} categories, so nothing would be learnt: {fix}'
        )
    if missing := [name for name in classes if name not in names]:
        raise UsageError(
            f'has no category for {len(missing)} of the {len(classes)} classes '
            f'({_some(missing)}), which shifts the labels of the others: {fix}'
        )
    if found != classes:
        raise UsageError(
            f'has its categories in another order than the classes ({_some(classes)}), and the '
            f'names would go to the wrong labels: {fix}'
        )
    return {category['id'] for category in content['categories'] if category['name'] in classes}


def _kept(content: dict, ids: set, dataset: dict) -> list[dict]:
    """The annotations that mmdet does not drop."""
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
            f'has no object to train on: of its {len(content["annotations"])} annotations none is '
            'of the classes and at least one pixel wide and high'
        )
    return kept


def _check_masks(kept: list[dict], dataset: dict, metrics: Iterable[dict]) -> None:
    loads = [step for step in dataset.get('pipeline') or () if step.get('with_mask')]
    evaluated = any('segm' in _listed(metric.get('metric')) for metric in metrics)
    bare = [annotation for annotation in kept if not annotation.get('segmentation')]
    if bare and (loads or evaluated):
        reason, fix = (
            ('the pipeline loads masks', 'with_mask=False there')
            if loads
            else ("the evaluator measures 'segm'", "metric='bbox' there")
        )
        raise UsageError(
            f"has no 'segmentation' in {len(bare)} of {len(kept)} annotations (the first has id "
            f'{bare[0]["id"]}), but {reason}: take a file with masks, or set {fix} and train a '
            'model without a mask head'
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
    # One listing a folder: a look at each of COCO's 118,287 files takes long on a network disk.
    there = {
        parent: set(os.listdir(folder / parent)) if (folder / parent).is_dir() else set()
        for parent in {os.path.dirname(name) for name in names}
    }
    lost = [name for name in names if os.path.basename(name) not in there[os.path.dirname(name)]]
    if lost:
        raise UsageError(
            f'names {len(names)} images and {len(lost)} of them are not in {folder} (the first is '
            f'{lost[0]}): set data_prefix=dict(img=...) to their folder, or complete it'
        )


def _some(names: list) -> str:
    shown = ', '.join(repr(name) for name in names[:10])
    return f'{shown}, ...' if len(names) > 10 else shown + (',' if len(names) == 1 else '')


def _listed(value) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value] if value else []
