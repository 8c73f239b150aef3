"""Runs of one config folded into mean and spread over its seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from .measures import VAL_LOSS, Measure
from .runs import DIVERGED, Run


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n - 1) over ``n`` runs.

    ``std`` is None for fewer than two runs, ``mean`` None for none. One NaN makes both NaN: a
    diverged run is never averaged away.
    """

    mean: float | None
    std: float | None
    n: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread:
        values = [value for value in values if value is not None]
        if not values:
            return cls(None, None, 0)
        if not all(map(math.isfinite, values)):
            return cls(math.nan, math.nan if len(values) > 1 else None, len(values))
        return cls(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


@dataclass
class Summary:
    """All runs of one config, the missing ones among them."""

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

    def last(self, measure: Measure) -> Spread:
        return Spread.of(run.last(measure.key) for run in self.done)

    def best(self, measure: Measure) -> Spread:
        return Spread.of(run.best(measure.key, measure.lower_is_better) for run in self.done)

    @property
    def final_loss(self) -> Spread:
        return Spread.of(run.final_loss for run in self.done)

    def recorded(self, key: str) -> Spread:
        """A number of record.json, e.g. images_per_second."""
        return Spread.of(run.record.get(key) for run in self.done)

    def seeds_in_words(self) -> str:
        """'3', or '2 of 3 (1 missing)', with diverged runs named."""
        words = str(len(self.done))
        if self.missing:
            words += f' of {len(self.runs)} ({len(self.missing)} missing)'
        if self.diverged:
            words += f', {len(self.diverged)} diverged'
        return words


def summarize(runs: Sequence[Run]) -> list[Summary]:
    """One summary per config, in the order in which configs first appear; the first is baseline."""
    grouped: dict[str, list[Run]] = {}
    for run in runs:
        grouped.setdefault(run.config, []).append(run)
    return [Summary(config, group) for config, group in grouped.items()]


def comparisons(runs: Sequence[Run]) -> list[list[Summary]]:
    """The summaries of each task, tasks in the order in which they first appear."""
    grouped: dict[str, list[Run]] = {}
    for run in runs:
        grouped.setdefault(run.task, []).append(run)
    return [summarize(group) for group in grouped.values()]


def delta(summary: Summary, baseline: Summary, measure: Measure) -> float | None:
    """Difference of the means, or None where one side has no finite mean."""
    here, there = summary.last(measure).mean, baseline.last(measure).mean
    if here is None or there is None or not math.isfinite(here - there):
        return None
    return here - there


def has_val_loss(summaries: Sequence[Summary]) -> bool:
    return any(run.series(VAL_LOSS) for summary in summaries for run in summary.runs)
