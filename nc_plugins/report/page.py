"""Writes a comparison as report.html, report.md, results.csv and pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from ..records import write_atomically
from .curves import curves_png
from .escape import code_block, inline, link
from .html_page import html_page
from .runs import Run
from .summary import Summary, against, comparisons
from .table import comparison_table, escaped, markdown, results_csv, seeds_table
from .verdict import caveats, recorded, verdicts


def write_report(
    out: Path, runs: Sequence[Run], command: str = '', title: str = '', jobs: int = 1
) -> Path:
    """Write report.html, report.md, results.csv, curves and pictures into ``out``.

    report.html contains all it shows. Without a change in the runs it has the same bytes.

    The runs of each task form a section of their own, in which the first config is the baseline.

    Args:
        out: folder, created if needed.
        runs: finished and missing runs.
        command: shell command that repeats the comparison.
        title: heading of the report.
        jobs: number of trainings that ran at the same time.

    Returns: the path of report.html.
    Raises: ValueError if ``runs`` is empty.
    """
    if not runs:
        raise ValueError('a report needs at least one run, got none.')
    out.mkdir(parents=True, exist_ok=True)
    compared = comparisons(runs)
    write_atomically(out / 'results.csv', results_csv(runs).encode())
    for summaries in compared:
        write_atomically(out / _curves_name(summaries, compared), curves_png(summaries))
    page = report_page(compared, out, command, title, jobs)
    write_atomically(out / 'report.md', page.encode())
    page = html_page(compared, command, title, jobs)
    write_atomically(out / 'report.html', page.encode())
    return out / 'report.html'


def report_page(
    compared: Sequence[Sequence[Summary]], out: Path, command: str, title: str, jobs: int
) -> str:
    """The text of report.md. Copies the pictures that it shows into ``out``."""
    single = len(compared) == 1
    every = [summary for summaries in compared for summary in summaries]
    seeds = sorted({run.seed for summary in every for run in summary.runs})
    date = datetime.now(timezone.utc).strftime('%Y-%m-%d %H:%M UTC')
    heading = against(every) if single else f'{len(compared)} comparisons'
    facts = [f'{date}. Seeds: {", ".join(map(str, seeds))}.']
    facts += [f'Baseline: {inline(every[0].name)}.'] if single else []
    sections = []
    for summaries in compared:
        if not single:
            sections += [
                f'## {inline(against(summaries))}',
                f'Baseline: {inline(summaries[0].name)}.',
            ]
        curves = _curves_name(summaries, compared)
        sections += _comparison(summaries, out, curves, jobs, '##' if single else '###')
    parts = [
        f'# {inline(title or heading)}',
        ' '.join(facts),
        'The tables show mean ± sample standard deviation over seeds ("-" for a single seed). '
        'Metrics are from the last validation. "Best" is the best over all validations of a run. '
        'The training loss is the mean over the last epoch, or over the last validation interval '
        'if the training counts iterations. Images/s covers training with data loading, without '
        'validation. Δ is the mean difference to the baseline over the seeds that both have. Its '
        "95 % interval is Student's t, and p is that of the exact sign-flip test, corrected by "
        "Holm's method for several configs, not for several metrics.",
        *sections,
        '## How it was made',
        'All numbers: [results.csv](results.csv).',
        code_block(command) if command else '',
        _bullets([*map(inline, _setting(every)), *(_config_line(s, out) for s in every)]),
    ]
    return '\n\n'.join(part for part in parts if part) + '\n'


def _comparison(
    summaries: Sequence[Summary], out: Path, curves: str, jobs: int, heading: str
) -> list[str]:
    sentences = [*verdicts(summaries), *caveats(summaries, jobs)]
    pictures = [line for summary in summaries for line in _picture_lines(summary, out)]
    return [
        markdown(escaped(comparison_table(summaries))),
        f'{heading} Reading',
        _bullets([*map(inline, sentences)]) or 'A single config has no comparison.',
        f'{heading} Curves',
        f'![Training loss, validation loss and quality]({link(curves)})',
        'Lines are means over the finished seeds, and bands show minimum and maximum. Dotted lines '
        'are unfinished runs.',
        *([f'{heading} Pictures', *pictures] if pictures else []),
        f'{heading} Every run',
        markdown(escaped(seeds_table(summaries))),
    ]


def _curves_name(summaries: Sequence[Summary], compared: Sequence[Sequence[Summary]]) -> str:
    return 'curves.png' if len(compared) == 1 else f'curves-{summaries[0].name}.png'


def _picture_lines(summary: Summary, out: Path) -> list[str]:
    """Copy the pictures of ``summary`` into ``out`` and link them."""
    lines = []
    for caption, picture in summary.pictures():
        copy = f'pictures/{summary.name}-{picture.name}'
        (out / 'pictures').mkdir(exist_ok=True)
        write_atomically(out / copy, picture.read_bytes())
        lines += [f'{inline(caption)}:', f'![]({link(copy)})']
    return lines


def _setting(summaries: Sequence[Summary]) -> list[str]:
    done = [run for summary in summaries for run in summary.done]

    def seen(key: str) -> str:
        return ', '.join(recorded(done, key))

    if not done:
        return []
    return [
        f'trained {min(recorded(done, "utc_start"))} to {max(recorded(done, "utc_end"))}',
        f'device {seen("device")}; processes {seen("world_size")}; CPU threads {seen("threads")}',
        f'torch {seen("torch")}; nc_plugins {seen("nc_plugins")}; commit {seen("commit")}',
        f'memory is {seen("memory_kind")}',
    ]


def _config_line(summary: Summary, out: Path) -> str:
    path = link(relative_path(summary.config, out))
    line = f'config [{inline(summary.name)}]({path})'
    census = next((run.record.census for run in summary.done), None)
    if census:
        kinds = ', '.join(f'{count} {kind}' for kind, count in census.items() if count)
        line += f': {inline(kinds)}'
    return line


def _bullets(lines: Sequence[str]) -> str:
    return '\n'.join(f'- {line}' for line in lines)


def relative_path(path: str | Path, start: Path) -> str:
    """``path`` relative to the folder ``start``, with forward slashes."""
    try:
        return Path(os.path.relpath(path, start)).as_posix()
    except ValueError:  # another drive on Windows
        return Path(path).as_posix()
