"""A hook that checks the built datasets against the model, before the first sample is read."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from .classes import check_num_classes
from .label_maps import check_every_class_occurs
from .usage import is_first_process


# force: a second import (reload, two names for one file) must register again, not raise.
@HOOKS.register_module(force=True)
class DataCheckHook(Hook):
    """Check classes and label maps, and let every dataset read through ``LoadImage``.

    Before a training or a test it

    - replaces mmcv's ``LoadImageFromFile`` by ``LoadImage`` and mmseg's ``LoadAnnotations`` by
      ``LoadSegMap`` in the built pipelines, whose errors name the file. The pixels of ordinary
      files do not change, nor does the config.
    - compares ``num_classes`` of the heads with the number of classes of each dataset;
    - names the classes that occur in no label map of the training set.

    ``tools/train.py`` and ``tools/test.py`` add it to every config.

    Raises:
        UsageError: If the numbers of classes differ.
        DataError: If the label maps have only one class.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner) -> None:
        training = list(_leaves(_dataset(runner.train_loop)))
        self._check(runner, 'train_dataloader', training)
        if runner.val_loop is not None:
            self._check(runner, 'val_dataloader', _leaves(_dataset(runner.val_loop)))
        if is_first_process():
            check_every_class_occurs(training)

    def before_test(self, runner) -> None:
        self._check(runner, 'test_dataloader', _leaves(_dataset(runner.test_loop)))

    def _check(self, runner, name: str, datasets) -> None:
        for dataset in datasets:
            _use_checked_loaders(dataset)
            check_num_classes(runner.model, dataset, name)


def _dataset(loop):
    return getattr(getattr(loop, 'dataloader', None), 'dataset', None)


def _leaves(dataset) -> Iterator:
    """The built datasets inside RepeatDataset, ConcatDataset, ClassBalancedDataset and others."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    for item in inner:
        if item is not None:
            yield from _leaves(item)
    if dataset is not None and inner == [None]:
        yield dataset


def _use_checked_loaders(dataset) -> None:
    steps = getattr(getattr(dataset, 'pipeline', None), 'transforms', None)
    if steps is not None:
        steps[:] = [_checked(step, dataset) for step in steps]


def _checked(step, dataset):
    """The loader that replaces ``step``, or ``step`` itself."""
    name = type(step).__name__
    package = type(step).__module__.partition('.')[0]
    # Imported here, because a set without images needs neither mmcv nor mmseg.
    if (name, package) == ('LoadImageFromFile', 'mmcv') and step.file_client_args is None:
        from ..datasets.loading import LoadImage

        backend = step.imdecode_backend
        return LoadImage(
            imdecode_backend='pillow' if backend in ('cv2', 'turbojpeg') else backend,
            skip_unreadable=step.ignore_empty,
            to_float32=step.to_float32,
            color_type=step.color_type,
            backend_args=copy.copy(step.backend_args),
        )
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    if (name, package) == ('LoadAnnotations', 'mmseg') and classes:
        from ..datasets.loading import LoadSegMap

        return LoadSegMap(
            num_classes=len(classes),
            ignore_index=getattr(dataset, 'ignore_index', 255),
            reduce_zero_label=step.reduce_zero_label,
            imdecode_backend=step.imdecode_backend,
            backend_args=copy.copy(step.backend_args),
        )
    return step
