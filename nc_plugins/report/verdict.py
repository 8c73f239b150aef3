"""What the numbers allow one to say, in sentences, and what they do not."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .measures import VAL_LOSS, Measure, measure, quality_measures
from .runs import Run
from .summary import Summary, delta, has_val_loss


def verdicts(summaries: Sequence[Summary]) -> list[str]:
    """One sentence per config after the first and per measure: the difference beside the spread."""
    baseline, *others = summaries
    measures = quality_measures(run for summary in summaries for run in summary.runs)
    measures += [measure(VAL_LOSS)] if has_val_loss(summaries) else []
    if not baseline.done:
        return [f'{baseline.name}, the baseline, has no finished run: nothing to compare with.']
    sentences = []
    for other in others:
        if not other.done:
            sentences.append(f'{other.name} has no finished run: nothing to say about it.')
            continue
        sentences += [_verdict(other, baseline, m) for m in measures]
    return sentences


def _verdict(other: Summary, baseline: Summary, measure: Measure) -> str:
    difference = delta(other, baseline, measure)
    if difference is None:
        return (
            f'{measure.label}: {other.name} and the baseline cannot be compared, '
            'one of them has no finite mean.'
        )
    here, there = other.last(measure), baseline.last(measure)
    size = measure.show(abs(difference))
    if float(size) == 0:
        return f'{measure.label}: {other.name} and the baseline agree to the digits shown.'
    direction = 'higher' if difference > 0 else 'lower'
    good = 'better' if (difference < 0) == measure.lower_is_better else 'worse'
    said = f'{measure.label}: {other.name} is {size} {direction} than the baseline ({good})'
    if here.std is None or there.std is None:
        return f'{said}. At least one side is a single seed, so nothing is known about the spread.'
    spread = max(here.std, there.std)
    counts = f'n = {here.n} and {there.n}'
    if abs(difference) <= spread:
        return (
            f'{said}. That is within one spread over seeds ({measure.show(spread)}, {counts}): '
            'these runs do not tell the two apart.'
        )
    if spread == 0:
        return f'{said}. Every seed gave the same value ({counts}).'
    ratio = abs(difference) / spread
    hint = '; a hint, no more' if ratio < 2 else ''
    return f'{said}, {ratio:.1f} times the larger spread ({measure.show(spread)}, {counts}){hint}.'


def caveats(summaries: Sequence[Summary], jobs: int = 1) -> list[str]:
    """What makes a table less than it looks: missing, diverged, unequal or disturbed runs."""
    found = []
    done = [run for summary in summaries for run in summary.done]
    for summary in summaries:
        if summary.missing:
            found.append(
                f'{summary.name}: {_seeds(summary.missing)} missing; its means are over the '
                'other seeds only.'
                if summary.done
                else f'{summary.name}: {_seeds(summary.missing)} missing, all there are.'
            )
        if summary.diverged:
            found.append(
                f'{summary.name}: {_seeds(summary.diverged)} diverged (NaN or infinite loss or '
                'metric); it stays in every mean it has a value for.'
            )
    unequal = (
        ('device', 'devices: compare speed and memory only within one'),
        ('world_size', 'numbers of processes: batch size and speed differ with it'),
        ('threads', 'numbers of CPU threads: compare speed only within one'),
        ('torch', 'torch versions'),
        ('nc_plugins', 'nc_plugins versions'),
        ('commit', 'commits of nc_plugins'),
    )
    for key, words in unequal:
        values = list(dict.fromkeys(str(run.record.get(key)) for run in done))
        if len(values) > 1:
            found.append(f'The runs come from different {words} ({", ".join(values)}).')
    if any('+dirty' in str(run.record.get('commit')) for run in done):
        found.append('Some runs used a checkout with uncommitted changes (commit +dirty).')
    # A run's own threads make up at most one load per core.
    busy = [r for r in done if r.record.get('load', 0) > 1.25 * r.record.get('cores', math.inf)]
    if busy:
        load = max(run.record['load'] for run in busy)
        found.append(
            f'{len(busy)} of {len(done)} runs ended on a machine with more work than cores (load '
            f'up to {load:.1f} on {busy[0].record["cores"]}): images/s is too low there.'
        )
    if jobs > 1:
        found.append(
            f'Up to {jobs} runs shared the machine: images/s is not what one run alone reaches.'
        )
    return found


def _seeds(runs: Sequence[Run]) -> str:
    return f'seed{"s" if len(runs) > 1 else ""} ' + ', '.join(str(run.seed) for run in runs)
