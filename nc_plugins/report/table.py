"""Summaries and runs as tables: Markdown, plain text, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from .measures import VAL_LOSS, Measure, measure, metric_keys, quality_measures
from .runs import Run
from .summary import Spread, Summary, delta, has_val_loss

_LOSS = Measure('loss', 'training loss')
_SPEED = Measure('images_per_second', 'images/s', 1)
_MEMORY = Measure('peak_memory_mb', 'peak memory (MiB)', 0)
# Taken over from record.json into results.csv.
_RECORDED = (
    'images_per_second',
    'peak_memory_mb',
    'memory_kind',
    'train_seconds',
    'total_seconds',
    'max_epochs',
    'max_iters',
    'commit',
    'utc_start',
    'utc_end',
    'torch',
    'nc_plugins',
    'device',
    'world_size',
    'threads',
    'cores',
    'load',
    'fingerprint',
)

Table = tuple[list[str], list[list[str]]]


def spread_words(spread: Spread, measure: Measure) -> str:
    """'48.20 ± 1.10', with '-' for the spread of one run, or '-' where nothing was measured."""
    if spread.mean is None:
        return '-'
    return f'{measure.show(spread.mean)} ± {measure.show(spread.std)}'


def comparison_table(summaries: Sequence[Summary]) -> Table:
    """Header and one row per config: means ± sample standard deviations over its seeds."""
    baseline = summaries[0]
    qualities = quality_measures(run for summary in summaries for run in summary.runs)
    losses = has_val_loss(summaries)
    val_loss = measure(VAL_LOSS)

    header = ['config', 'seeds', *(q.label for q in qualities), 'final training loss']
    header += ['validation loss, last', 'validation loss, best'] if losses else []
    header += ['images/s', 'peak memory (MiB)']
    header += [f'Δ {q.label}' for q in qualities]
    rows = []
    for summary in summaries:
        row = [summary.name, summary.seeds_in_words()]
        row += [spread_words(summary.last(q), q) for q in qualities]
        row.append(spread_words(summary.final_loss, _LOSS))
        if losses:
            row += [spread_words(f(val_loss), val_loss) for f in (summary.last, summary.best)]
        row.append(spread_words(summary.recorded(_SPEED.key), _SPEED))
        row.append(_MEMORY.show(summary.recorded(_MEMORY.key).mean))
        for quality in qualities:
            difference = delta(summary, baseline, quality)
            row.append('baseline' if summary is baseline else quality.show(difference, sign=True))
        rows.append(row if summary.done else [*row[:2], *['missing'] * (len(row) - 2)])
    return header, rows


def seeds_table(summaries: Sequence[Summary]) -> Table:
    """Header and one row per run: what each seed gave, and why a missing run is missing."""
    qualities = quality_measures(run for summary in summaries for run in summary.runs)
    losses = [measure(VAL_LOSS)] if has_val_loss(summaries) else []
    header = ['config', 'seed', 'status']
    for quality in [*qualities, *losses]:
        header += [f'{quality.label}, last', 'best']
    header += ['final training loss', 'images/s']
    rows = []
    for run in (run for summary in summaries for run in summary.runs):
        row = [run.name, str(run.seed), run.status if run.done else f'missing: {run.why}']
        if not run.done:
            rows.append(row + ['-'] * (len(header) - len(row)))
            continue
        for quality in [*qualities, *losses]:
            best = run.best(quality.key, quality.lower_is_better)
            row += [quality.show(run.last(quality.key)), quality.show(best)]
        row += [_LOSS.show(run.final_loss), _SPEED.show(run.record.get(_SPEED.key))]
        rows.append(row)
    return header, rows


def markdown(table: Table) -> str:
    header, rows = table
    align = [':--', *['--:'] * (len(header) - 1)]
    return '\n'.join(
        '| ' + ' | '.join(cell.replace('|', r'\|') for cell in row) + ' |'
        for row in [header, align, *rows]
    )


def plain(table: Table, width: int | None = None) -> str:
    """For a terminal: columns aligned, the first to the left, the others to the right.

    A table wider than ``width`` characters is turned, one column per config, if that is narrower.
    """
    text = _aligned(table)
    if width is not None and _width(text) > width:
        header, *rows = ([*column] for column in zip(table[0], *table[1], strict=True))
        turned = _aligned((header, rows))
        text = min(text, turned, key=_width)
    return text


def _aligned(table: Table) -> str:
    header, rows = table
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = []
    for row in [header, ['-' * width for width in widths], *rows]:
        cells = [row[0].ljust(widths[0])]
        cells += [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
        lines.append('  '.join(cells).rstrip())
    return '\n'.join(lines)


def _width(text: str) -> int:
    return max(map(len, text.splitlines()))


def results_csv(runs: Sequence[Run]) -> str:
    """One row per run, every metric its last and its best value; empty cells where missing."""
    keys = metric_keys(runs)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator='\n')
    columns = [name for key in keys for name in (key, f'{key} (best)')]
    writer.writerow(
        ['config', 'seed', 'status', 'why', *columns, 'final training loss', *_RECORDED, 'command']
    )
    for run in runs:
        row = [run.config, run.seed, run.status, run.why]
        for key in keys:
            best = run.best(key, measure(key).lower_is_better)
            row += [run.last(key), best] if run.done else [None, None]
        row.append(run.final_loss if run.done else None)
        writer.writerow([*row, *(run.record.get(key) for key in _RECORDED), run.command])
    return file.getvalue()
