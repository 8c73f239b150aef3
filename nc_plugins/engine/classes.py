"""Compares the number of classes of the heads with that of the data."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from .usage import UsageError, some

# Their num_classes is not the number of classes of the boxes: stuff classes, and a box or none.
OTHER_HEADS = ('FusedSemanticHead', 'GARPNHead', 'RPNHead')


def check_num_classes(model: nn.Module, dataset, where: str) -> None:
    """Raise UsageError if a head of ``model`` predicts another number of classes than there are.

    Args:
        model: the built model.
        dataset: a built dataset, not a wrapper of others.
        where: first word of the message, such as 'train_dataloader'.
    """
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    heads = list(_heads(model))
    if classes:
        count = len(classes)
        source = f'its data has {count} ({some(classes)})'
        for key, number in [*heads, *_loaders(dataset, where)]:
            if number != count:
                raise UsageError(
                    f'{where}: {key} is {number}, but {source}: set {key}={count}, or correct the '
                    'classes of the dataset'
                )
    labels = _labels(dataset)
    number = min([len(classes)] if classes else [number for _, number in heads], default=None)
    if labels is not None and number is not None:
        low, high = labels
        if low < 0 or high >= number:
            raise UsageError(
                f'{where}: {dataset.ann_file} has the label {low if low < 0 else high}, but with '
                f'{number} classes the labels are 0 to {number - 1}: correct the file, or set '
                'num_classes of the head and the classes of the dataset'
            )


def _heads(model: nn.Module) -> Iterator[tuple[str, int]]:
    """Config key and number of classes of each head."""
    for name, module in model.named_modules():
        parts = [part for part in name.split('.') if not part.isdigit()]
        number = getattr(module, 'num_classes', None)
        if (
            parts
            and parts[-1].endswith('head')
            and parts[-1] != 'rpn_head'
            and type(module).__name__ not in OTHER_HEADS
            and isinstance(number, int)
            and number > 0
        ):
            yield f'model.{name.removeprefix("module.")}.num_classes', number


def _loaders(dataset, where: str) -> Iterator[tuple[str, int]]:
    """Config key and number of classes of each LoadSegMap in the pipeline."""
    steps = getattr(getattr(dataset, 'pipeline', None), 'transforms', None) or ()
    for index, step in enumerate(steps):
        if type(step).__name__ == 'LoadSegMap':
            yield f'{where}.dataset.pipeline.{index}.num_classes', step.num_classes


def _labels(dataset) -> tuple[int, int] | None:
    """The lowest and highest label in the annotation file of a classification set."""
    if not getattr(dataset, 'ann_file', None) or len(dataset) == 0:
        return None
    if not hasattr(dataset, 'get_cat_ids') or 'gt_label' not in dataset.get_data_info(0):
        return None
    labels = {label for index in range(len(dataset)) for label in dataset.get_cat_ids(index)}
    return (min(labels), max(labels)) if labels else None
