"""Conclusions from a comparison, and reasons to doubt them, in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .measures import Measure
from .runs import Run
from .statistics import CONFIDENCE, MIN_PAIRS, Evidence, PairedTest
from .summary import Summary, compared_measures, paired


def answer(summaries: Sequence[Summary]) -> str:
    """What the comparison shows in its most important measure, in one sentence."""
    baseline, *others = summaries
    measures = compared_measures(summaries)
    if not baseline.done:
        words = ', the baseline,' if others else ''
        return f'There is no answer yet: {baseline.name}{words} has no finished run.'
    if not measures:
        return 'There is no answer: the trainings recorded no metric.'
    measure = measures[0]
    if not others:
        reached = measure.format(baseline.last(measure).mean)
        return f'{baseline.name} reaches {reached} in {measure.label}, without a comparison.'
    tests = paired(summaries, measure)
    if len(others) == 1:
        return _answer(others[0], baseline, measure, tests[others[0].config])
    clauses = [_clause(other, measure, tests[other.config]) for other in others]
    return f'Against {baseline.name} in {measure.label}: {"; ".join(clauses)}.'


def _answer(other: Summary, baseline: Summary, measure: Measure, test: PairedTest) -> str:
    if not other.done:
        return f'There is no answer yet: {other.name} has no finished run.'
    if not test.n or not math.isfinite(test.mean):
        return f'{other.name} and {baseline.name} cannot be compared: {_obstacle(test)}.'
    here, there = (measure.format(s.last(measure).mean) for s in (other, baseline))
    values = f'{here} against {there}, {measure.format(test.mean, sign=True)} over {_pairs(test)}'
    if test.evidence is Evidence.UNTESTED:
        return (
            f'No verdict between {other.name} and {baseline.name} in {measure.label}: {values}, '
            f'and a verdict needs {MIN_PAIRS}.'
        )
    values += f' ({_numbers(test, measure)})'
    if test.evidence is Evidence.NONE:
        return (
            f'These runs do not show which is better in {measure.label}, {other.name} or '
            f'{baseline.name}: {values}.'
        )
    weak = 'There is weak evidence that ' if test.evidence is Evidence.WEAK else ''
    better = f'{other.name} is {_better(test, measure)} than {baseline.name} in {measure.label}'
    return f'{weak}{better}: {values}.'


def _clause(other: Summary, measure: Measure, test: PairedTest) -> str:
    if not other.done or not test.n or not math.isfinite(test.mean):
        return f'{other.name} cannot be compared'
    difference = measure.format(test.mean, sign=True)
    if test.evidence is Evidence.UNTESTED:
        return f'{other.name} has no verdict ({difference}, {_pairs(test)})'
    if test.evidence is Evidence.NONE:
        return f'{other.name} shows no clear difference ({difference})'
    weak = ', with weak evidence' if test.evidence is Evidence.WEAK else ''
    return f'{other.name} is {_better(test, measure)}{weak} ({difference})'


def verdicts(summaries: Sequence[Summary]) -> list[str]:
    """A sentence for each measure of each config: its difference to the baseline, tested."""
    baseline, *others = summaries
    if not baseline.done:
        return [f'{baseline.name}, the baseline, has no finished run, so there is no comparison.']
    sentences = [f'{other.name} has no finished run.' for other in others if not other.done]
    for measure in compared_measures(summaries):
        tests = paired(summaries, measure)
        sentences += [
            f'{measure.label}: {_verdict(other, measure, tests[other.config])}'
            for other in others
            if other.done
        ]
    return sentences


def _verdict(other: Summary, measure: Measure, test: PairedTest) -> str:
    if not test.n or not math.isfinite(test.mean):
        return f'{other.name} and the baseline cannot be compared, because {_obstacle(test)}.'
    size = measure.format(abs(test.mean))
    sentence = f'{other.name} and the baseline are equal to the digits shown'
    if float(size) != 0:
        direction = 'higher' if test.mean > 0 else 'lower'
        sentence = f'{other.name} is {size} {direction} than the baseline'
        sentence += f' ({_better(test, measure)})'
    sentence += f', over {_pairs(test)}'
    if test.evidence is Evidence.UNTESTED:
        return f'{sentence}. A verdict needs at least {MIN_PAIRS} pairs.'
    return f'{sentence} ({_numbers(test, measure)}). {_reading(test)}'


def _reading(test: PairedTest) -> str:
    """What the interval and the p-value say together, in one sentence."""
    if test.evidence is Evidence.STRONG:
        return 'Both the interval and p show a difference.'
    if test.evidence is Evidence.NONE:
        return 'This does not show which one is better.'
    if test.adjusted_p <= 1 - CONFIDENCE:
        return 'Weak evidence: p is small, but the interval includes 0.'
    return 'Weak evidence: the interval excludes 0, but p is above 0.05.'


def short_verdict(test: PairedTest, measure: Measure) -> str:
    """:attr:`PairedTest.evidence` in a few words, for a table."""
    if not test.n:
        return 'no seed in common'
    if not math.isfinite(test.mean):
        return 'not finite'
    if test.evidence is Evidence.UNTESTED:
        return f'fewer than {MIN_PAIRS} pairs'
    if test.evidence is Evidence.NONE:
        return 'not decided'
    weak = 'weak evidence: ' if test.evidence is Evidence.WEAK else ''
    return weak + _better(test, measure)


def _obstacle(test: PairedTest) -> str:
    return 'one of them has no finite mean' if test.n else 'they have no seed in common'


def _better(test: PairedTest, measure: Measure) -> str:
    return 'better' if (test.mean < 0) == measure.lower_is_better else 'worse'


def _numbers(test: PairedTest, measure: Measure) -> str:
    low, high = (measure.format(value, sign=True) for value in test.interval)
    p, smallest = format_p(test.adjusted_p), format_p(test.smallest_p)
    return f'95 % interval {low} to {high}; p {p}, smallest possible {smallest}'


def _pairs(test: PairedTest) -> str:
    return f'{test.n} pair{"" if test.n == 1 else "s"} of seeds'


def format_p(p: float) -> str:
    return f'{p:.2g}' if p >= 0.001 else '< 0.001'


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
