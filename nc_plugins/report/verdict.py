"""Conclusions from a comparison, and reasons to doubt them, in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .measures import VAL_LOSS, Measure, measure, quality_measures
from .runs import Run
from .summary import Summary, delta, has_val_loss


def verdicts(summaries: Sequence[Summary]) -> list[str]:
    """A sentence for each measure of each config: its difference to the baseline.

    The difference is compared with the standard deviation over seeds.
    """
    baseline, *others = summaries
    measures = quality_measures(run for summary in summaries for run in summary.runs)
    measures += [measure(VAL_LOSS)] if has_val_loss(summaries) else []
    if not baseline.done:
        return [f'{baseline.name}, the baseline, has no finished run, so there is no comparison.']
    sentences = []
    for other in others:
        if not other.done:
            sentences.append(f'{other.name} has no finished run.')
            continue
        sentences += [_verdict(other, baseline, m) for m in measures]
    return sentences


def _verdict(other: Summary, baseline: Summary, measure: Measure) -> str:
    difference = delta(other, baseline, measure)
    if difference is None:
        return (
            f'{measure.label}: {other.name} and the baseline cannot be compared, because one of '
            'them has no finite mean.'
        )
    here, there = other.last(measure), baseline.last(measure)
    size = measure.format(abs(difference))
    if float(size) == 0:
        return f'{measure.label}: {other.name} and the baseline are equal to the digits shown.'
    direction = 'higher' if difference > 0 else 'lower'
    good = 'better' if (difference < 0) == measure.lower_is_better else 'worse'
    sentence = f'{measure.label}: {other.name} is {size} {direction} than the baseline ({good})'
    if here.std is None or there.std is None:
        return f'{sentence}. One side has a single seed, so its standard deviation is unknown.'
    std = max(here.std, there.std)
    counts = f'n = {here.n} and {there.n}'
    if abs(difference) <= std:
        return (
            f'{sentence}. That is within one standard deviation over seeds ({measure.format(std)}, '
            f'{counts}): these runs do not show which one is better.'
        )
    if std == 0:
        return f'{sentence}. Every seed gave the same value ({counts}).'
    ratio = abs(difference) / std
    weak = '; weak evidence' if ratio < 2 else ''
    return (
        f'{sentence}, {ratio:.1f} times the larger standard deviation over seeds '
        f'({measure.format(std)}, {counts}){weak}.'
    )


def caveats(summaries: Sequence[Summary], jobs: int = 1) -> list[str]:
    """Reasons to doubt a comparison: missing, diverged, unequal or disturbed runs.

    ``jobs`` is the number of trainings that ran at the same time.
    """
    found = []
    done = [run for summary in summaries for run in summary.done]
    for summary in summaries:
        if summary.missing:
            found.append(
                f'{summary.name}: {_seeds(summary.missing)} missing; its means cover the other '
                'seeds only.'
                if summary.done
                else f'{summary.name}: all runs are missing ({_seeds(summary.missing)}).'
            )
        if summary.diverged:
            found.append(
                f'{summary.name}: {_seeds(summary.diverged)} diverged (NaN or infinite loss or '
                'metric). The means include it.'
            )
    unequal = (
        ('device', 'devices', ': their speed and memory cannot be compared'),
        ('world_size', 'numbers of processes', ': batch size and speed depend on it'),
        ('threads', 'numbers of CPU threads', ': their speed cannot be compared'),
        ('torch', 'torch versions', ''),
        ('nc_plugins', 'nc_plugins versions', ''),
        ('commit', 'commits of nc_plugins', ''),
    )
    for key, words, consequence in unequal:
        values = recorded(done, key)
        if len(values) > 1:
            found.append(f'The runs have different {words} ({", ".join(values)}){consequence}.')
    if any('+dirty' in commit for commit in recorded(done, 'commit')):
        found.append('Some runs used a checkout with uncommitted changes (commit +dirty).')
    # The threads of the run itself add at most one to the load for each core.
    busy = [r.record for r in done if (r.record.load or 0) > 1.25 * (r.record.cores or math.inf)]
    if busy:
        load = max(record.load for record in busy)
        found.append(
            f'{len(busy)} of {len(done)} runs ended on a machine with more work than cores (load '
            f'up to {load:.1f} on {busy[0].cores}): their images/s is too low.'
        )
    if jobs > 1:
        found.append(f'Up to {jobs} runs shared the machine: a single run reaches more images/s.')
    return found


def recorded(runs: Sequence[Run], key: str) -> list[str]:
    """The distinct values of a field of record.json, as text."""
    return list(dict.fromkeys(str(getattr(run.record, key)) for run in runs))


def _seeds(runs: Sequence[Run]) -> str:
    return f'seed{"s" if len(runs) > 1 else ""} ' + ', '.join(str(run.seed) for run in runs)
