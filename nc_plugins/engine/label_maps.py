"""Checks the files of semantic segmentation: the list of images, and the labels that occur."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import numpy as np
from mmengine.logging import print_log
from mmengine.registry import DATASETS

from ..datasets.images import DataError, missing_files, warn_of_unread_images
from .usage import UsageError, is_first_process, some

SECONDS = 30  # to look for classes in label maps


def check_segmentation_files(dataset: dict, cls: type | None, where: str) -> None:
    """Check that the images and label maps of a local mmseg dataset exist.

    Only rank 0 checks.

    Args:
        dataset: config of one dataset, whose ``ann_file`` and folders exist.
        cls: the class of ``dataset['type']``.
        where: first word of the messages, such as 'train_dataloader'.

    Raises: UsageError with the list or folder, and the first file that is missing.
    """
    names = [base.__name__ for base in getattr(cls, '__mro__', ())]
    if 'BaseSegDataset' not in names or dataset.get('backend_args') or not is_first_process():
        return
    try:
        with DATASETS.switch_scope_and_registry(dataset.get('_scope_')) as registry:
            built = registry.build({**dataset, 'pipeline': [], 'lazy_init': True})
        entries = built.load_data_list()
    except Exception:  # building the runner reports it, with an explanation
        return
    listed = os.path.isfile(built.ann_file)
    source = built.ann_file if listed else built.data_prefix.get('img_path')
    if not entries:
        suffix = '' if listed else f' with names that end in {built.img_suffix!r}'
        raise UsageError(f'{where}: {source} lists no images{suffix}')
    elif not listed:
        suffixes = (built.img_suffix, built.seg_map_suffix)
        warn_of_unread_images(Path(source), lambda name: name.endswith(suffixes), where)
    loads = any('Seg' in str(s.get('type')) or 'Ann' in str(s.get('type')) for s in _steps(dataset))
    for key, kind in (('img_path', 'image'), ('seg_map_path', 'label map')):
        paths = [entry.get(key) for entry in entries]
        if None in paths or any('://' in path for path in paths):
            continue
        missing = missing_files(Path(), paths)
        if missing and (key == 'img_path' or loads):
            line = f'line {paths.index(missing[0]) + 1} of ' if listed else ''
            raise UsageError(
                f'{where}: {kind} {missing[0]!r} of {line}{source} does not exist ({len(missing)} '
                f'of {len(paths)} are missing): a line is the name of an image without folder and '
                f'suffix; img_suffix is {built.img_suffix!r}, seg_map_suffix is '
                f'{built.seg_map_suffix!r}'
            )


def _steps(dataset: dict) -> list[dict]:
    return [step for step in dataset.get('pipeline') or () if isinstance(step, dict)]


def check_every_class_occurs(datasets: list) -> None:
    """Warn about the classes that occur in no label map of the training set.

    Reads label maps in a random order until every class has occurred, for at most ``SECONDS``.

    Args:
        datasets: the built datasets of the training, not wrappers. Those without a ``LoadSegMap``
            are left out.

    Raises: DataError if all label maps together have one class, so there is nothing to learn, or
        if a label map cannot be used.
    """
    places = [
        (dataset, loader, index)
        for dataset in datasets
        if (loader := _loader(dataset)) is not None
        for index in range(len(dataset))
    ]
    if not places:
        return
    classes = places[0][0].metainfo.get('classes') or range(places[0][1].num_classes)
    missing, seen, read = set(range(len(classes))), set(), 0
    end = time.monotonic() + SECONDS
    order = np.random.default_rng(0).permutation(len(places))
    for place in order:
        if not missing or time.monotonic() > end:
            break
        dataset, loader, index = places[place]
        labels = set(loader.read(dataset.get_data_info(index)).tolist())
        seen |= labels
        missing -= labels
        read += 1
    how = f'all {read}' if read == len(places) else f'{read} of {len(places)}'
    if not missing:
        print_log(f'every class occurs in the label maps (looked at {how})', 'current')
        return
    ignored = loader.ignore_index
    ignores = f'; the label {ignored} also occurs, and it is ignored' if ignored in seen else ''
    absent = ', '.join(f'{classes[label]!r} (label {label})' for label in sorted(missing))
    found = some(sorted(seen - {ignored}))
    sentence = (
        f'class {absent} occurs in no label map of the training set (looked at {how} label maps, '
        f'such as {dataset.get_data_info(0)["seg_map_path"]}), they have the labels ({found})'
        f'{ignores}'
    )
    if read == len(places) and len(classes) > 1 and len(classes) - len(missing) <= 1:
        raise DataError(f'{sentence}, so there is nothing to learn: correct the label maps')
    print_log(sentence, 'current', logging.WARNING)


def _loader(dataset):
    steps = getattr(getattr(dataset, 'pipeline', None), 'transforms', None) or ()
    return next((step for step in steps if type(step).__name__ == 'LoadSegMap'), None)
