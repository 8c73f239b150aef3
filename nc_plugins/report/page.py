"""report.md, results.csv and curves.png from a list of runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from .curves import curves_png
from .runs import Run
from .summary import Summary, summarize
from .table import comparison_table, markdown, results_csv, seeds_table
from .verdict import caveats, verdicts


def write_report(
    out: Path, runs: Sequence[Run], command: str = '', title: str = '', jobs: int = 1
) -> Path:
    """Write the three files into ``out``, each in one step, and return the path of report.md.

    ``runs`` come config by config, the baseline's first; ``command`` is what the reader can type to
    get the same; ``jobs`` says how many runs shared the machine.
    Raises: ValueError if there is no run at all (missing runs are runs).
    """
    if not runs:
        raise ValueError('a report wants at least one run, got none.')
    out.mkdir(parents=True, exist_ok=True)
    summaries = summarize(runs)
    _replace(out / 'results.csv', results_csv(runs).encode())
    _replace(out / 'curves.png', curves_png(summaries))
    page = report_page(summaries, out, command, title, jobs)
    _replace(out / 'report.md', page.encode())
    return out / 'report.md'


def report_page(
    summaries: Sequence[Summary], out: Path, command: str = '', title: str = '', jobs: int = 1
) -> str:
    """The text of report.md; links to configs are relative to ``out``."""
    warnings = caveats(summaries, jobs)
    date = datetime.now(timezone.utc).strftime('%Y-%m-%d %H:%M UTC')
    seeds = sorted({run.seed for summary in summaries for run in summary.runs})
    names = [s.name for s in summaries]
    others = ', '.join(names[1:]) if len(names) < 4 else f'{len(names) - 1} others'
    parts = [
        f'# {title or names[0] + (f" against {others}" if others else "")}',
        f'{date}. Seeds: {", ".join(map(str, seeds))}. Baseline: {names[0]}.',
        markdown(comparison_table(summaries)),
        'Mean ± sample standard deviation over seeds, "-" for the spread of a single seed. Metrics '
        'are those of the last validation, not of the best one; "best" is the best over all '
        'validations, each run picking its own. The training loss is the mean over the last epoch '
        '(over the last validation interval if training counts iterations). Images/s is training '
        'alone, data loading included. Δ is the difference to the baseline.',
        '## Reading',
        _bullets([*verdicts(summaries), *warnings]) or 'One config alone: nothing to compare.',
        '## Curves',
        '![Training loss, validation loss and quality](curves.png)',
        'Lines are means over the finished seeds, bands their minimum and maximum; dotted lines '
        'are unfinished runs.',
        '## Every run',
        markdown(seeds_table(summaries)),
        'All numbers: [results.csv](results.csv).',
        '## How it was made',
        _block(command) if command else '',
        _bullets([*_setting(summaries), *(_config_line(s, out) for s in summaries)]),
    ]
    return '\n\n'.join(part for part in parts if part) + '\n'


def _setting(summaries: Sequence[Summary]) -> list[str]:
    done = [run for summary in summaries for run in summary.done]

    def seen(key: str) -> str:
        return ', '.join(dict.fromkeys(str(run.record.get(key)) for run in done))

    if not done:
        return []
    times = [str(run.record.get('utc_start')) for run in done]
    return [
        f'trained {min(times)} to {max(str(run.record.get("utc_end")) for run in done)}',
        f'device {seen("device")}; processes {seen("world_size")}; CPU threads {seen("threads")}',
        f'torch {seen("torch")}; nc_plugins {seen("nc_plugins")}; commit {seen("commit")}',
        f'memory is {seen("memory_kind")}',
    ]


def _config_line(summary: Summary, out: Path) -> str:
    link = Path(os.path.relpath(summary.config, out)).as_posix()
    line = f'config [{summary.name}]({link})'
    census = next((run.record.get('census') for run in summary.done), None)
    if isinstance(census, dict):
        line += ': ' + ', '.join(f'{count} {kind}' for kind, count in census.items() if count)
    return line


def _bullets(lines: Sequence[str]) -> str:
    return '\n'.join(f'- {line}' for line in lines)


def _block(text: str) -> str:
    return f'```\n{text}\n```'


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + '.partial')
    partial.write_bytes(content)
    os.replace(partial, path)
