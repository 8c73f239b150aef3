"""Checks a COCO annotation file for mistakes that mmdet reports late or not at all."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from mmengine.logging import print_log

from ..datasets.images import missing_files
from .coco_rules import check_entries, check_first_id
from .coco_schema import Annotation, CocoFile, Image, RunLengths, read_coco
from .usage import UsageError, is_first_process, listed, some


def check_coco(dataset: dict, cls: type | None, where: str, metrics: Iterable[dict] = ()) -> None:
    """Check the annotation file of a local mmdet CocoDataset, and that its images exist.

    Not checked: other dataset classes, subclasses with their own ``load_data_list``, and files
    behind a file client. Only rank 0 checks. Objects that mmdet drops give a warning. A file of the
    size of instances_train2017.json takes 10 s of CPU time.

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
    metrics = list(metrics)
    masks = any(step.get('with_mask') for step in dataset.get('pipeline') or ())
    segm = any('segm' in listed(metric.get('metric')) for metric in metrics)
    try:
        content = read_coco(path, masks=masks or segm)
        check_entries(content)
        ids = _category_ids(content, dataset, cls)
        kept = _kept(content, ids, f'{where}: {path}')
        if dataset.get('test_mode'):
            _check_evaluated(content, path, metrics)
        else:
            _check_something_left(content, kept, ids, dataset)
        _check_masks(kept, dataset, segm)
        _check_images(content.images, folder)
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


def _category_ids(content: CocoFile, dataset: dict, cls: type) -> set[int]:
    """The ids of the categories in the dataset's ``classes``.

    mmdet numbers the labels in the order of the file. A class that is not in the file shifts the
    labels of the classes after it, without an error.
    """
    classes = list(cls._load_metainfo(dataset.get('metainfo')).get('classes') or ())
    names = [category.name for category in content.categories]
    found = [name for name in names if name in classes]
    fix = f'set metainfo=dict(classes=({some(names)})) of the dataset'
    if classes and not found:
        raise UsageError(
            f'has none of the {len(classes)} classes ({some(classes)}) among its '
            f'{len(names)} categories, so there is nothing to learn: {fix}'
        )
    if missing := [name for name in classes if name not in names]:
        raise UsageError(
            f'has no category for {len(missing)} of the {len(classes)} classes '
            f'({some(missing)}), which shifts the labels of the others: {fix}'
        )
    if found != classes:
        raise UsageError(
            f'has its categories in another order than the classes ({some(classes)}), so labels '
            f'would get wrong names: {fix}'
        )
    return {category.id for category in content.categories if category.name in classes}


def _kept(content: CocoFile, ids: set[int], name: str) -> list[Annotation]:
    """The annotations of the classes that mmdet keeps. Warns about those that it drops."""
    images = {image.id: image for image in content.images}
    kept, dropped, over = [], [], []
    for index, annotation in enumerate(content.annotations):
        if annotation.ignore or annotation.category_id not in ids:
            continue
        image = images[annotation.image_id]
        left, top, width, height = annotation.bbox
        right, bottom = left + width, top + height
        outside = min(right, image.width) <= max(left, 0) or min(bottom, image.height) <= max(
            top, 0
        )
        if outside or annotation.area <= 0 or min(width, height) < 1:
            dropped.append(index)
            continue
        kept.append(annotation)
        if max(-left, -top, right - image.width, bottom - image.height) > 1:
            over.append(index)
    total = len(content.annotations)
    if dropped:
        _warn(
            f'{name}: {len(dropped)} of {total} annotations (the first is annotations['
            f'{dropped[0]}]) are not used, because they have no area, are narrower than a pixel or '
            'lie outside of their image'
        )
    if over:
        _warn(
            f'{name}: {len(over)} of {total} boxes (the first is annotations[{over[0]}]) reach '
            'over the edge of their image; bbox is left, top, width, height in pixels'
        )
    return kept


def _check_something_left(
    content: CocoFile, kept: list[Annotation], ids: set[int], dataset: dict
) -> None:
    """Check that objects are left after mmdet's ``filter_cfg``."""
    filters = dataset.get('filter_cfg') or {}
    size, drop_empty = filters.get('min_size', 0), filters.get('filter_empty_gt', False)
    large = {image.id for image in content.images if min(image.width, image.height) >= size}
    if not large:
        raise UsageError(
            f'has no image to train on: all {len(content.images)} are smaller than filter_cfg '
            f'min_size={size} pixels; set a smaller min_size'
        )
    if drop_empty and not any(a.category_id in ids for a in content.annotations):
        large = set()
    ordinary = [a for a in kept if not a.iscrowd and a.image_id in large]
    if not ordinary:
        crowd = sum(bool(annotation.iscrowd) for annotation in content.annotations)
        raise UsageError(
            f'has no object to train on: of its {len(content.annotations)} annotations none '
            'belongs to the classes, is at least one pixel wide and high, is no crowd region '
            f'(iscrowd=1, {crowd} are), and lies in an image of at least {size} pixels'
        )


def _check_evaluated(content: CocoFile, path: Path, metrics: list[dict]) -> None:
    """Check the file that the evaluator compares with, which need not be the dataset's."""
    for metric in metrics:
        other = metric.get('ann_file')
        if not isinstance(other, str) or '://' in other:
            continue  # CocoMetric then makes its own file from the dataset
        truth = content
        if Path(other).resolve() != path.resolve():
            truth = read_coco(Path(other), masks=False)
            names = {image.id: image.file_name for image in truth.images}
            for index, image in enumerate(content.images):
                if names.get(image.id) != image.file_name:
                    raise UsageError(
                        f'has {image.file_name!r} with the id {image.id} as images[{index}], but '
                        f'the file {other} of the evaluator does not: give both the same ann_file'
                    )
        try:
            check_entries(truth)
            check_first_id(truth.annotations)
        except UsageError as e:
            raise (
                e if truth is content else UsageError(f'is evaluated with {other}, which {e}')
            ) from e
        if all(annotation.iscrowd for annotation in truth.annotations):
            _warn(f'{other} has no object that is not a crowd region, so AP will be -1')


def _check_masks(kept: list[Annotation], dataset: dict, segm: bool) -> None:
    loads = [step for step in dataset.get('pipeline') or () if step.get('with_mask')]
    if not loads and not segm:
        return
    no_mask = [annotation for annotation in kept if not annotation.segmentation]
    if no_mask:
        reason, fix = (
            ('the pipeline loads masks', 'with_mask=False there')
            if loads
            else ("the evaluator measures 'segm'", "metric='bbox' there")
        )
        raise UsageError(
            f"has no 'segmentation' in {len(no_mask)} of {len(kept)} annotations (the first has "
            f'id {no_mask[0].id}), but {reason}: use a file with masks, or set {fix} and train '
            'a model without a mask head'
        )
    if any(not step.get('poly2mask', True) for step in loads):
        runs = [a for a in kept if isinstance(a.segmentation, RunLengths) and not a.iscrowd]
        if runs:
            raise UsageError(
                f'has run-length masks in {len(runs)} annotations (the first has id '
                f'{runs[0].id}), which LoadAnnotations with poly2mask=False ignores: set '
                'poly2mask=True'
            )


def _check_images(images: list[Image], folder: Path) -> None:
    names = [image.file_name for image in images]
    missing = missing_files(folder, names)
    if missing:
        raise UsageError(
            f'lists {len(names)} images, and {len(missing)} of them are not in {folder} (the first '
            f'is {missing[0]}): set data_prefix=dict(img=...) to their folder, or complete it'
        )


def _warn(text: str) -> None:
    print_log(text, 'current', logging.WARNING)
