"""Mean and standard deviation over the seeds of each config."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from ..records import newest_pictures
from .measures import VAL_LOSS, Measure, measure, quality_measures
from .runs import DIVERGED, Run
from .statistics import PairedTest, compare_paired


@dataclass(frozen=True)
class MeanStd:
    """Mean and sample standard deviation (n - 1 in the denominator) over ``n`` runs.

    ``mean`` is None without runs, ``std`` with fewer than two. A NaN in one run makes both NaN, so
    that a diverged run stays visible.
    """

    mean: float | None
    std: float | None
    n: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> MeanStd:
        values = [value for value in values if value is not None]
        if not values:
            return cls(None, None, 0)
        if not all(map(math.isfinite, values)):
            return cls(math.nan, math.nan if len(values) > 1 else None, len(values))
        return cls(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


@dataclass
class Summary:
    """All runs of one config, including missing ones."""

    config: str
    runs: list[Run]

    @property
    def name(self) -> str:
        return self.runs[0].name

    @property
    def done(self) -> list[Run]:
        return [run for run in self.runs if run.done]

    @property
    def missing(self) -> list[Run]:
        return [run for run in self.runs if not run.done]

    @property
    def diverged(self) -> list[Run]:
        return [run for run in self.runs if run.status == DIVERGED]

    def by_seed(self, measure: Measure) -> dict[int, float]:
        """The last value of each finished run that has the measure."""
        values = {run.seed: run.last(measure.key) for run in self.done}
        return {seed: value for seed, value in values.items() if value is not None}

    def last(self, measure: Measure) -> MeanStd:
        return MeanStd.of(self.by_seed(measure).values())

    def best(self, measure: Measure) -> MeanStd:
        return MeanStd.of(run.best(measure.key, measure.lower_is_better) for run in self.done)

    @property
    def final_loss(self) -> MeanStd:
        return MeanStd.of(run.final_loss for run in self.done)

    def recorded(self, key: str) -> MeanStd:
        """A number of record.json, such as images_per_second."""
        return MeanStd.of(getattr(run.record, key) for run in self.done)

    def pictures(self) -> list[tuple[str, Path]]:
        """(caption, file) of the last pictures that the first finished run drew."""
        return [
            (f'{self.name}, seed {run.seed}, {picture.stem}', picture)
            for run in self.done[:1]
            for picture in newest_pictures(run.folder)
        ]

    def seeds_in_words(self) -> str:
        """Number of finished runs: '3', '2 of 3 (1 missing)' or '3, 1 diverged'."""
        words = str(len(self.done))
        if self.missing:
            words += f' of {len(self.runs)} ({len(self.missing)} missing)'
        if self.diverged:
            words += f', {len(self.diverged)} diverged'
        return words


def summarize(runs: Sequence[Run]) -> list[Summary]:
    """One summary for each config, in order of appearance. The first is the baseline."""
    return [Summary(config, group) for config, group in _grouped(runs, 'config').items()]


def comparisons(runs: Sequence[Run]) -> list[list[Summary]]:
    """The summaries of each task, in order of appearance."""
    return [summarize(group) for group in _grouped(runs, 'task').values()]


def against(summaries: Sequence[Summary]) -> str:
    """'gn against nc' or 'gn against 5 others': the heading of a comparison."""
    first, *others = [summary.name for summary in summaries]
    names = ', '.join(others) if len(others) < 3 else f'{len(others)} others'
    return first + (f' against {names}' if others else '')


def _grouped(runs: Sequence[Run], attribute: str) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(getattr(run, attribute), []).append(run)
    return groups


def paired(summaries: Sequence[Summary], measure: Measure) -> dict[str, PairedTest]:
    """{config: its test against the baseline} for all configs but the baseline."""
    baseline, *others = summaries
    values = {other.config: other.by_seed(measure) for other in others}
    return compare_paired(baseline.by_seed(measure), values)


def compared_measures(summaries: Sequence[Summary]) -> list[Measure]:
    """What the configs are compared by, the most important measure first."""
    losses = [measure(VAL_LOSS)] if has_val_loss(summaries) else []
    return quality_measures(run for summary in summaries for run in summary.runs) + losses


def has_val_loss(summaries: Sequence[Summary]) -> bool:
    return any(run.series(VAL_LOSS) for summary in summaries for run in summary.runs)
