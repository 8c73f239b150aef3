"""Writes a comparison as one HTML page that needs no other file.

The text of the page is in templates/. Jinja escapes every value that it inserts.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from .curves import INK, curves_svg, line_label, line_style
from .measures import Measure, measure
from .runs import Run
from .saved_config import config_diff, read_saved_config
from .statistics import MIN_PAIRS, Evidence, PairedTest
from .summary import MeanStd, Summary, against, compared_measures, paired
from .table import Table, cost_table, mean_std, results_table, seeds_table
from .verdict import answer, caveats, format_p, short_verdict


def breakable(text: str) -> Markup:
    """``text``, escaped, with a place for a line break after each underscore and point."""
    return Markup('<wbr>').join(re.split(r'(?<=[_.])', text))


_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name('templates')),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters['breakable'] = breakable
_DARK_INK = '#b4bac2'  # in place of INK on a dark page
_DASHES = {'-': '', '--': '6 3', '-.': '6 2 1.5 2', ':': '1.5 2.5'}
_ENVIRONMENT = {
    'device': 'device',
    'world_size': 'processes',
    'threads': 'CPU threads',
    'cores': 'CPU cores',
    'load': 'load at the end',
    'torch': 'torch',
    'nc_plugins': 'nc_plugins',
    'commit': 'commit',
    'memory_kind': 'memory is',
}


def html_page(
    compared: Sequence[Sequence[Summary]], command: str = '', title: str = '', jobs: int = 1
) -> str:
    """The text of report.html.

    Args:
        compared: for each task its summaries, the baseline first.
        command, title, jobs: as for ``write_report``.
    """
    every = [summary for summaries in compared for summary in summaries]
    runs = [run for summary in every for run in summary.runs]
    heading = against(every) if len(compared) == 1 else f'{len(compared)} comparisons'
    return _TEMPLATES.get_template('report.html').render(
        title=title or heading,
        seeds=', '.join(map(str, sorted({run.seed for run in runs}))),
        trained=_trained(runs),
        command=command,
        sections=[_section(summaries, jobs) for summaries in compared],
        min_pairs=MIN_PAIRS,
    )


def _section(summaries: Sequence[Summary], jobs: int) -> dict:
    """The values of one comparison in the template."""
    done = [run for summary in summaries for run in summary.done]
    return dict(
        heading=against(summaries),
        baseline=summaries[0].name,
        others=[summary.name for summary in summaries[1:]],
        answer=answer(summaries),
        tone=_tone(summaries),
        caveats=caveats(summaries, jobs),
        results=results_table(summaries),
        differences=_differences(summaries),
        legend=[_legend(i, summary) for i, summary in enumerate(summaries)],
        curves=[
            (label, *(_data_uri(image, 'svg+xml') for image in (svg, _darkened(svg))))
            for label, svg in curves_svg(summaries)
        ],
        pictures=[
            (caption, _data_uri(file.read_bytes(), 'png'))
            for summary in summaries
            for caption, file in summary.pictures()
        ],
        classes=_class_tables(summaries),
        costs=cost_table(summaries),
        census=_census_table(summaries),
        environment=_environment(done),
        diffs=_config_diffs(summaries),
        runs=seeds_table(summaries),
        commands=[run.command for summary in summaries for run in summary.runs if run.command],
    )


@dataclass
class _Difference:
    """A row of the table of differences, as text."""

    config: str
    verdict: str
    tone: str
    mean: str
    interval: str
    by_seed: str
    plot: dict | None
    pairs: int
    p: str
    smallest_p: str
    adjusted_p: str


def _differences(summaries: Sequence[Summary]) -> list[tuple[str, list[_Difference]]]:
    """(metric, rows) for each metric."""
    groups = []
    for m in compared_measures(summaries):
        tests = paired(summaries, m)
        numbers = [abs(x) for test in tests.values() for x in _numbers(test)]
        scale = max(filter(math.isfinite, numbers), default=0.0)
        rows = [_difference(s, m, tests[s.config], scale) for s in summaries[1:]]
        groups.append((m.label, rows))
    return groups


def _difference(summary: Summary, measure: Measure, test: PairedTest, scale: float) -> _Difference:
    def signed(value: float | None) -> str:
        return measure.format(value, sign=True)

    tested = test.interval is not None
    return _Difference(
        config=summary.name,
        verdict=short_verdict(test, measure),
        tone=_test_tone(test, measure),
        mean=signed(test.mean),
        interval=' to '.join(map(signed, test.interval)) if tested else '-',
        by_seed=', '.join(map(signed, test.differences)),
        plot=_plot(test, scale),
        pairs=test.n,
        p=format_p(test.p) if tested else '-',
        smallest_p=format_p(test.smallest_p) if tested else '-',
        adjusted_p=format_p(test.adjusted_p) if tested else '-',
    )


def _numbers(test: PairedTest) -> tuple[float, ...]:
    return (*test.differences, *(test.interval or ()))


def _plot(test: PairedTest, scale: float) -> dict | None:
    """Positions from 0 to 160, with 80 for no difference."""
    if not test.n or not scale or not math.isfinite(test.mean):
        return None

    def position(value: float) -> float:
        return round(80 + 74 * value / scale, 2)

    return dict(
        seeds=list(map(position, test.differences)),
        interval=tuple(map(position, test.interval)) if test.interval else None,
    )


def _test_tone(test: PairedTest, measure: Measure) -> str:
    """Name of the colour for a verdict: good, bad, weak or plain."""
    if test.evidence is Evidence.STRONG:
        return 'good' if short_verdict(test, measure) == 'better' else 'bad'
    return 'weak' if test.evidence is Evidence.WEAK else 'plain'


def _tone(summaries: Sequence[Summary]) -> str:
    """The colour of the answer, which has only one if it is about one config."""
    measures = compared_measures(summaries)
    if len(summaries) != 2 or not measures:
        return 'plain'
    (test,) = paired(summaries, measures[0]).values()
    return _test_tone(test, measures[0])


def _legend(index: int, summary: Summary) -> dict:
    colour, style = line_style(index)
    return dict(label=line_label(summary), colour=colour, dashes=_DASHES[style])


def _class_tables(summaries: Sequence[Summary]) -> list[tuple[str, Table]]:
    """(metric, table) for each metric that the runs have by class."""
    runs = [run for summary in summaries for run in summary.done]
    tables = []
    for key in dict.fromkeys(key for run in runs for key in run.per_class):
        classes = list(dict.fromkeys(c for run in runs for c in run.per_class.get(key, ())))
        rows = [
            [name, *(_mean_of_class(summary, key, name) for summary in summaries)]
            for name in classes
        ]
        tables.append(
            (measure(key).label, (['class', *(summary.name for summary in summaries)], rows))
        )
    return tables


def _mean_of_class(summary: Summary, key: str, name: str) -> str:
    values = [run.per_class.get(key, {}).get(name) for run in summary.done]
    return mean_std(MeanStd.of(values), measure(key))


def _census_table(summaries: Sequence[Summary]) -> Table:
    """Header and a row for each config: its number of layers of each kind."""
    counted = {
        summary.name: next((run.record.census for run in summary.done if run.record.census), {})
        for summary in summaries
    }
    kinds = dict.fromkeys(kind for census in counted.values() for kind, n in census.items() if n)
    rows = [[name, *(str(census.get(k, 0)) for k in kinds)] for name, census in counted.items()]
    return ['config', *kinds], rows if kinds else []


def _environment(runs: Sequence[Run]) -> list[tuple[str, str]]:
    rows = []
    for key, words in _ENVIRONMENT.items():
        values = [getattr(run.record, key) for run in runs]
        texts = [f'{v:.1f}' if isinstance(v, float) else str(v) for v in values if v is not None]
        rows.append((words, ', '.join(dict.fromkeys(texts)) or 'unknown'))
    return rows


def _config_diffs(summaries: Sequence[Summary]) -> list[tuple[str, list | None]]:
    """(config, what differs from the baseline, or None if a saved config cannot be read)."""
    baseline, *others = map(_saved_config, summaries)
    return [
        (summary.name, config_diff(baseline, other) if baseline and other else None)
        for summary, other in zip(summaries[1:], others, strict=True)
    ]


def _saved_config(summary: Summary) -> dict | None:
    saved = (read_saved_config(run.folder, run.config) for run in summary.done + summary.missing)
    return next(filter(None, saved), None)


def _trained(runs: Sequence[Run]) -> str:
    done = [run.record for run in runs if run.record.utc_start and run.record.utc_end]
    if not done:
        return ''
    start, end = min(r.utc_start for r in done), max(r.utc_end for r in done)
    days = [time[:16].replace('T', ' ') for time in (start, end)]
    return f'{days[0]} to {days[1]} UTC'


def _darkened(svg: bytes) -> bytes:
    return svg.replace(INK.encode(), _DARK_INK.encode())


def _data_uri(content: bytes, kind: str) -> str:
    return f'data:image/{kind};base64,{base64.b64encode(content).decode()}'
