"""Names, units, digits and order of the metrics that a report shows."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from .runs import Run

VAL_LOSS = 'val/loss'


@dataclass(frozen=True)
class Measure:
    """How to show a metric.

    Attributes:
        key: name of the metric in the history.
        label: name with unit, for tables and axes.
        decimals: digits after the point.
        lower_is_better: direction of improvement.
    """

    key: str
    label: str
    decimals: int = 3
    lower_is_better: bool = False

    def format(self, value: float | None, sign: bool = False) -> str:
        """``value`` as text, '-' for None; ``sign`` adds a plus to positive values."""
        if value is None:
            return '-'
        if not math.isfinite(value):
            return str(value)
        return f'{value:{"+" if sign else ""}.{self.decimals}f}'


# Most important first. mmdetection gives fractions, mmpretrain and mmsegmentation give percent.
KNOWN = (
    Measure('accuracy/top1', 'top-1 accuracy (%)', 2),
    Measure('coco/bbox_mAP', 'box mAP (0-1)', 3),
    Measure('coco/segm_mAP', 'mask mAP (0-1)', 3),
    Measure('coco/bbox_mAP_50', 'box AP50 (0-1)', 3),
    Measure('coco/segm_mAP_50', 'mask AP50 (0-1)', 3),
    Measure('mIoU', 'mean IoU (%)', 2),
    Measure('digits/read', 'translated digits read right (%)', 2),
    Measure('cycle/l1', 'cycle L1 (0-2)', 4, lower_is_better=True),
    Measure('inception/fid_AB', 'FID, A to B', 2, lower_is_better=True),
    Measure('inception/fid_BA', 'FID, B to A', 2, lower_is_better=True),
    Measure('inception/kid_AB', 'KID, A to B', 4, lower_is_better=True),
    Measure('inception/kid_BA', 'KID, B to A', 4, lower_is_better=True),
    Measure(VAL_LOSS, 'validation loss (nats)', 3, lower_is_better=True),
    # By class. mmdet gives the precisions of the last of CocoMetric's metrics.
    Measure('class/IoU', 'IoU (%)', 2),
    Measure('coco/precision', 'AP of the last COCO metric (0-1)', 3),
)
_LOWER = re.compile(
    r'(^|[/_])(loss|error|err|fid|kid|mae|mse|rmse|l1|l2|nll|perplexity)(_|$)', re.I
)


def measure(key: str) -> Measure:
    """The known measure with this key, or a new one that uses the key as its label."""
    other = Measure(key, key, 4, lower_is_better=bool(_LOWER.search(key)))
    return next((known for known in KNOWN if known.key == key), other)


def metric_keys(runs: Iterable[Run]) -> list[str]:
    """All metrics in the validations of ``runs``: known ones first, then in order of appearance."""
    seen = dict.fromkeys(key for run in runs for _, metrics in run.validations for key in metrics)
    known = [known.key for known in KNOWN if known.key in seen]
    return known + [key for key in seen if key not in known]


def quality_measures(runs: Iterable[Run], limit: int = 6) -> list[Measure]:
    """The first ``limit`` measures to compare, without the validation loss.

    Known measures if the runs have any, else all others.
    """
    keys = [key for key in metric_keys(runs) if key != VAL_LOSS]
    known = [key for key in keys if any(key == k.key for k in KNOWN)]
    return [measure(key) for key in (known or keys)[:limit]]
