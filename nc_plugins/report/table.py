"""Tables of summaries and runs, as Markdown, plain text and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import fields

from ..records import Record
from .escape import cell, inline
from .measures import VAL_LOSS, Measure, measure, metric_keys, quality_measures
from .runs import Run
from .summary import MeanStd, Summary, delta, has_val_loss

_LOSS = Measure('loss', 'training loss')
_SPEED = Measure('images_per_second', 'images/s', 1)
_MEMORY = Measure('peak_memory_mb', 'peak memory (MiB)', 0)
# Fields of record.json that are not columns of results.csv, or have a column of another origin.
_NOT_COLUMNS = ['finished', 'config', 'seed', 'metrics', 'metrics_min', 'metrics_max', 'census']
_COLUMNS = [f.name for f in fields(Record) if f.name not in _NOT_COLUMNS]

Table = tuple[list[str], list[list[str]]]


def _mean_std(value: MeanStd, measure: Measure) -> str:
    """'48.20 ± 1.10', '48.20 ± -' for a single run, '-' without a value."""
    if value.mean is None:
        return '-'
    return f'{measure.format(value.mean)} ± {measure.format(value.std)}'


def comparison_table(summaries: Sequence[Summary]) -> Table:
    """Header and a row for each config: mean ± sample standard deviation over its seeds."""
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
        row += [_mean_std(summary.last(q), q) for q in qualities]
        row.append(_mean_std(summary.final_loss, _LOSS))
        if losses:
            row += [_mean_std(f(val_loss), val_loss) for f in (summary.last, summary.best)]
        row.append(_mean_std(summary.recorded(_SPEED.key), _SPEED))
        row.append(_MEMORY.format(summary.recorded(_MEMORY.key).mean))
        for quality in qualities:
            difference = delta(summary, baseline, quality)
            row.append('baseline' if summary is baseline else quality.format(difference, sign=True))
        rows.append(row if summary.done else [*row[:2], *['missing'] * (len(row) - 2)])
    return header, rows


def seeds_table(summaries: Sequence[Summary]) -> Table:
    """Header and a row for each run: its results, or the reason why it is missing."""
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
            row += [quality.format(run.last(quality.key)), quality.format(best)]
        row += [_LOSS.format(run.final_loss), _SPEED.format(run.record.images_per_second)]
        rows.append(row)
    return header, rows


def escaped(table: Table) -> Table:
    """The table with cells that are text, not Markdown."""
    header, rows = table
    return [inline(text) for text in header], [[inline(text) for text in row] for row in rows]


def markdown(table: Table) -> str:
    """A table in Markdown. Its cells are Markdown, too: see :func:`escaped`."""
    header, rows = table
    align = [':--', *['--:'] * (len(header) - 1)]
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in [header, align, *rows])


def plain(table: Table, width: int | None = None) -> str:
    """Align the columns for a terminal: the first column to the left, the others to the right.

    A table wider than ``width`` characters is transposed if that makes it narrower.
    """
    text = _aligned(table)
    if width is not None and _width(text) > width:
        header, *rows = ([*column] for column in zip(table[0], *table[1], strict=True))
        text = min(text, _aligned((header, rows)), key=_width)
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
    """A row for each run, with the last and the best value of every metric.

    The cells of missing runs are empty.
    """
    keys = metric_keys(runs)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator='\n')
    columns = [name for key in keys for name in (key, f'{key} (best)')]
    header = ['config', 'seed', 'status', 'why', *columns]
    writer.writerow(map(cell, [*header, 'final training loss', *_COLUMNS, 'command']))
    for run in runs:
        row = [run.config, run.seed, run.status, run.why]
        for key in keys:
            best = run.best(key, measure(key).lower_is_better)
            row += [run.last(key), best] if run.done else [None, None]
        row.append(run.final_loss if run.done else None)
        row += [getattr(run.record, key) for key in _COLUMNS]
        writer.writerow(map(cell, [*row, run.command]))
    return file.getvalue()
