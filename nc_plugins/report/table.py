"""Tables of summaries and runs, as Markdown, plain text and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import fields

from ..records import Record
from .escape import cell, inline
from .measures import VAL_LOSS, Measure, measure, metric_keys, quality_measures
from .progress import duration
from .runs import Run
from .summary import MeanStd, Summary, compared_measures, has_val_loss, paired

_LOSS = Measure('loss', 'training loss')
_SPEED = Measure('images_per_second', 'images/s', 1)
_MEMORY = Measure('peak_memory_mb', 'peak memory (MiB)', 0)
# Fields of record.json that are not columns of results.csv, or have a column of another origin.
_NOT_COLUMNS = ['finished', 'config', 'seed', 'metrics', 'metrics_min', 'metrics_max', 'census']
_COLUMNS = [f.name for f in fields(Record) if f.name not in _NOT_COLUMNS]

Table = tuple[list[str], list[list[str]]]
Column = tuple[str, Callable[[Summary], str]]


def mean_std(value: MeanStd, measure: Measure) -> str:
    """'48.20 ± 1.10', '48.20 ± -' for a single run, '-' without a value."""
    if value.mean is None:
        return '-'
    return f'{measure.format(value.mean)} ± {measure.format(value.std)}'


def comparison_table(summaries: Sequence[Summary]) -> Table:
    """Header and a row for each config: mean ± sample standard deviation over its seeds."""
    columns = [*_result_columns(summaries), _SPEED_COLUMN, _MEMORY_COLUMN]
    for quality in quality_measures(run for summary in summaries for run in summary.runs):
        columns.append((f'Δ {quality.label}', _delta(summaries, quality)))
    return _by_config(summaries, columns)


def results_table(summaries: Sequence[Summary]) -> Table:
    """The columns of :func:`comparison_table` about quality and losses."""
    return _by_config(summaries, _result_columns(summaries))


def cost_table(summaries: Sequence[Summary]) -> Table:
    """Header and a row for each config: speed, time and memory."""
    columns = [_SPEED_COLUMN, ('training time', _mean_duration('train_seconds'))]
    columns += [('whole run', _mean_duration('total_seconds')), _MEMORY_COLUMN]
    return _by_config(summaries, columns)


def _by_config(summaries: Sequence[Summary], columns: Sequence[Column]) -> Table:
    header = ['config', 'seeds', *(name for name, _ in columns)]
    rows = []
    for summary in summaries:
        cells = [text(summary) if summary.done else 'missing' for _, text in columns]
        rows.append([summary.name, summary.seeds_in_words(), *cells])
    return header, rows


def _result_columns(summaries: Sequence[Summary]) -> list[Column]:
    qualities = quality_measures(run for summary in summaries for run in summary.runs)
    columns = [(q.label, lambda s, q=q: mean_std(s.last(q), q)) for q in qualities]
    columns.append(('final training loss', lambda s: mean_std(s.final_loss, _LOSS)))
    if has_val_loss(summaries):
        loss = measure(VAL_LOSS)
        columns += [
            ('validation loss, last', lambda s: mean_std(s.last(loss), loss)),
            ('validation loss, best', lambda s: mean_std(s.best(loss), loss)),
        ]
    return columns


_SPEED_COLUMN = (_SPEED.label, lambda s: mean_std(s.recorded(_SPEED.key), _SPEED))
_MEMORY_COLUMN = (_MEMORY.label, lambda s: _MEMORY.format(s.recorded(_MEMORY.key).mean))


def _mean_duration(key: str) -> Callable[[Summary], str]:
    def text(summary: Summary) -> str:
        seconds = summary.recorded(key).mean
        return '-' if seconds is None else duration(seconds)

    return text


def _delta(summaries: Sequence[Summary], measure: Measure) -> Callable[[Summary], str]:
    tests = paired(summaries, measure)

    def text(summary: Summary) -> str:
        if summary is summaries[0]:
            return 'baseline'
        mean = tests[summary.config].mean
        return '-' if mean is None or math.isnan(mean) else measure.format(mean, sign=True)

    return text


def seeds_table(summaries: Sequence[Summary]) -> Table:
    """Header and a row for each run: its results, or the reason why it is missing."""
    measures = compared_measures(summaries)
    header = ['config', 'seed', 'status']
    for m in measures:
        header += [f'{m.label}, last', 'best']
    header += ['final training loss', 'images/s']
    rows = []
    for run in (run for summary in summaries for run in summary.runs):
        row = [run.name, str(run.seed), run.status if run.done else f'missing: {run.why}']
        if not run.done:
            rows.append(row + ['-'] * (len(header) - len(row)))
            continue
        for m in measures:
            best = run.best(m.key, m.lower_is_better)
            row += [m.format(run.last(m.key)), m.format(best)]
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
