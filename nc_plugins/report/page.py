"""report.md, results.csv and curves.png from a list of runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from .curves import curves_png
from .runs import Run, newest_pictures
from .summary import Summary, comparisons
from .table import comparison_table, markdown, results_csv, seeds_table
from .verdict import caveats, verdicts


def write_report(
    out: Path, runs: Sequence[Run], command: str = '', title: str = '', jobs: int = 1
) -> Path:
    """Write report.md, results.csv, curves and pictures into ``out``; return the path of report.md.

    Each file is written in one step. Runs of one task form one comparison, whose first config is
    its baseline; several tasks make several sections. ``command`` is what the reader can type to
    get the same; ``jobs`` says how many runs shared the machine.
    Raises: ValueError if there is no run at all (missing runs are runs).
    """
    if not runs:
        raise ValueError('a report wants at least one run, got none.')
    out.mkdir(parents=True, exist_ok=True)
    compared = comparisons(runs)
    _replace(out / 'results.csv', results_csv(runs).encode())
    for summaries in compared:
        _replace(out / _curves_name(summaries, compared), curves_png(summaries))
    page = report_page(compared, out, command, title, jobs)
    _replace(out / 'report.md', page.encode())
    return out / 'report.md'


def report_page(
    compared: Sequence[Sequence[Summary]], out: Path, command: str, title: str, jobs: int
) -> str:
    """The text of report.md; the pictures that it shows are copied into ``out``."""
    alone = len(compared) == 1
    every = [summary for summaries in compared for summary in summaries]
    seeds = sorted({run.seed for summary in every for run in summary.runs})
    date = datetime.now(timezone.utc).strftime('%Y-%m-%d %H:%M UTC')
    heading = _against(every) if alone else f'{len(compared)} comparisons'
    facts = [f'{date}. Seeds: {", ".join(map(str, seeds))}.']
    facts += [f'Baseline: {every[0].name}.'] if alone else []
    sections = []
    for summaries in compared:
        if not alone:
            sections += [f'## {_against(summaries)}', f'Baseline: {summaries[0].name}.']
        curves = _curves_name(summaries, compared)
        sections += _comparison(summaries, out, curves, jobs, level='##' if alone else '###')
    parts = [
        f'# {title or heading}',
        ' '.join(facts),
        'Mean ± sample standard deviation over seeds, "-" for the spread of a single seed. Metrics '
        'are those of the last validation, not of the best one; "best" is the best over all '
        'validations, each run picking its own. The training loss is the mean over the last epoch '
        '(over the last validation interval if training counts iterations). Images/s is training '
        'alone, data loading included. Δ is the difference to the baseline.',
        *sections,
        '## How it was made',
        'All numbers: [results.csv](results.csv).',
        _block(command) if command else '',
        _bullets([*_setting(every), *(_config_line(s, out) for s in every)]),
    ]
    return '\n\n'.join(part for part in parts if part) + '\n'


def _comparison(
    summaries: Sequence[Summary], out: Path, curves: str, jobs: int, level: str
) -> list[str]:
    said = [*verdicts(summaries), *caveats(summaries, jobs)]
    pictures = [line for summary in summaries for line in _picture_lines(summary, out)]
    return [
        markdown(comparison_table(summaries)),
        f'{level} Reading',
        _bullets(said) or 'One config alone: nothing to compare.',
        f'{level} Curves',
        f'![Training loss, validation loss and quality]({curves})',
        'Lines are means over the finished seeds, bands their minimum and maximum; dotted lines '
        'are unfinished runs.',
        *([f'{level} Pictures', *pictures] if pictures else []),
        f'{level} Every run',
        markdown(seeds_table(summaries)),
    ]


def _against(summaries: Sequence[Summary]) -> str:
    first, *others = [summary.name for summary in summaries]
    names = ', '.join(others) if len(others) < 3 else f'{len(others)} others'
    return first + (f' against {names}' if others else '')


def _curves_name(summaries: Sequence[Summary], compared: Sequence[Sequence[Summary]]) -> str:
    return 'curves.png' if len(compared) == 1 else f'curves-{summaries[0].name}.png'


def _picture_lines(summary: Summary, out: Path) -> list[str]:
    """What the last validation of the first finished seed drew, copied beside the page."""
    lines = []
    for run in summary.done[:1]:
        for picture in newest_pictures(run.folder):
            link = f'pictures/{summary.name}-{picture.name}'
            (out / 'pictures').mkdir(exist_ok=True)
            _replace(out / link, picture.read_bytes())
            lines += [f'{summary.name}, seed {run.seed}, {picture.stem}:', f'![]({link})']
    return lines


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
