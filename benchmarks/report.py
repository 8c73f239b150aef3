"""Tables and plots in docs/benchmarks from results.csv.

python benchmarks/report.py            # write docs/benchmarks
python benchmarks/report.py --check    # exit 1 if it is not what results.csv gives
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import results
from cases import CASES, Model
from figures import CPU_FIGURES, GPU_FIGURES, Table, figure_table
from results import Row, geometric_mean

from nc_plugins.report import markdown

FOLDER = Path(__file__).parents[1] / 'docs' / 'benchmarks'
INTRO = """\
# Benchmarks

Made by `python benchmarks/report.py` from [results.csv](../../benchmarks/results.csv), which
`python benchmarks/run.py` adds to; its head says how things are measured. Not edited by hand.

A ratio below 1 says that NC is faster, or takes less. It is the median over rounds of NC's figure
over the other's in the same round; 20 % and 80 % quantiles stand in brackets. Geometric means are
over the distinct shapes of a network, unweighted; "network" weighs each shape by how often it
occurs (sums of median times). Times are in milliseconds, memory in MB (1e6 bytes).

| system | what it is |
| :-- | :-- |
| nc | `NCConv2d(affine=True)`, backend chosen by `'auto'` |
| nc-pair | `NCConv2d` and `NCAffine`, as configs build them |
| nc-cpu, nc-aten, nc-triton | `NCConv2d(affine=True)` on one backend |
| definition | `NCConv2d(affine=True)` as its definition reads: im2col, plain torch |
| conv | the convolution alone |
| conv+gn | convolution and GroupNorm of 32 groups, with gain and bias like all that follow |
| conv+bn | convolution and BatchNorm: the batch's statistics, in inference the running ones |
| convws+gn | mmcv's weight-standardised convolution and GroupNorm of 32 groups |
| conv+pn | convolution and PositionalNorm |
"""


class Context(NamedTuple):
    """What ratios must have in common to stand in one table."""

    device: str
    threads: str
    dtype: str
    layout: str

    def __str__(self) -> str:
        where = f'{self.device}, {self.threads} threads' if self.on_cpu else self.device
        return f'{where}, {self.dtype}, {self.layout}'

    @property
    def on_cpu(self) -> bool:
        return self.device.startswith('CPU')

    @property
    def slug(self) -> str:
        letters = (c.lower() if c.isalnum() else '-' for c in ' '.join(self))
        return '-'.join(filter(None, ''.join(letters).split('-')))


def context(row: Row) -> Context:
    return Context(*(row[name] for name in Context._fields))


def unique(items: Iterable) -> list:
    return list(dict.fromkeys(items))


def group_of(row: Row) -> str:
    return row['case'].split('/')[0]


# Tables of everything


def timings(rows: Sequence[Row]) -> list[tuple[str, Table]]:
    """A table for each group, mode and context: times, kept and peak memory, and their ratios."""
    return [
        (f'{group}, {_mode_words(mode, metric)}: {where}', _table(found, metric))
        for group, mode, metric, where, found in _sections(rows)
    ]


def _sections(rows: Sequence[Row]):
    """Group, mode, metric, context and the rows that have them, ratios among them."""
    sections: dict[tuple, list[Row]] = {}
    for row in rows:
        key = (group_of(row), row['mode'], row['metric'].split(' / ')[0], context(row))
        sections.setdefault(key, []).append(row)
    for key, found in sections.items():
        yield *key, found


def _mode_words(mode: str, metric: str) -> str:
    if metric != 'time':
        return {'kept': 'MB kept for backward', 'peak': 'peak MB of a training step'}[metric]
    return {'fwd': 'inference, ms', 'train': 'training, ms', 'bwd': 'backward, ms'}[mode]


def _table(rows: Sequence[Row], metric: str) -> Table:
    found = {(r['case'], r['system'], r['metric']): r for r in rows}
    names = unique(r['system'] for r in rows)
    ratios = [
        (system, f'{metric} / {base}')
        for system, base in (
            ('nc', 'conv+gn'), ('nc', 'conv'), ('nc', 'convws+gn'), ('nc-pair', 'conv+gn'),
            ('definition', 'nc'),
        )
        if any((r['system'], r['metric']) == (system, f'{metric} / {base}') for r in rows)
    ]  # fmt: skip
    header = ['case', 'count', *names, *(f'{s} {m[len(metric) + 1 :]}' for s, m in ratios)]
    table = []
    for case in unique(r['case'] for r in rows):
        row = [CASES[case].label, str(getattr(CASES[case], 'count', 1))]
        cells = (found.get((case, name, metric)) for name in names)
        row += ['-' if cell is None else _amount(cell) for cell in cells]
        cells = (found.get((case, *ratio)) for ratio in ratios)
        row += ['-' if cell is None else _ratio(cell) for cell in cells]
        table.append(row)
    if len(table) > 1 and not any(isinstance(CASES[r['case']], Model) for r in rows):
        table += _totals(found, names, ratios, metric)
    return header, table


def _totals(found, names, ratios, metric: str) -> list[list[str]]:
    cases = unique(case for case, _, _ in found)

    def over_network(system: str) -> float | None:
        cells = {case: found.get((case, system, metric)) for case in cases}
        if None in cells.values():
            return None
        return sum(CASES[case].count * float(cell['q50']) for case, cell in cells.items())

    totals = {name: over_network(name) for name in names}
    network = ['network', '']
    network += ['-' if total is None else _number(total, metric) for total in totals.values()]
    mean = ['geometric mean', '', *[''] * len(names)]
    for system, ratio in ratios:
        cells = [found.get((case, system, ratio)) for case in cases]
        values = [float(cell['q50']) for cell in cells if cell]
        mean.append(f'{geometric_mean(values):.3f}')
        over, under = totals.get(system), totals.get(ratio.split(' / ')[1])
        network.append(f'{over / under:.3f}' if over and under else '-')
    return [network, mean]


def _amount(row: Row) -> str:
    return _number(float(row['q50']), row['metric'])


def _number(value: float, metric: str) -> str:
    return f'{value:.4g}' if metric == 'time' else f'{value / 1e6:.4g}'


def _ratio(row: Row) -> str:
    text = f'{float(row["q50"]):.3f}'
    same = row['q20'] == row['q80']
    return text if same else f'{text} [{float(row["q20"]):.2f}, {float(row["q80"]):.2f}]'


# The page


def pages(rows: Sequence[Row]) -> dict[str, str | Callable[[], bytes]]:
    """File name -> text, or for a plot what draws it as PNG."""
    place = {name: i for i, name in enumerate(CASES)}
    rows = results.latest(row for row in rows if row['case'] in CASES)
    rows.sort(key=lambda row: (place[row['case']], *context(row)))
    files: dict[str, str | Callable[[], bytes]] = {}
    text = [INTRO, *_acceptance(rows)]
    for group, mode, metric, where, found in _sections(rows):
        text.append(f'## {group}, {_mode_words(mode, metric)}\n\n{where}. {_origin(found)}\n')
        plotted = [r for r in found if r['system'] == 'nc' and r['metric'] in _PLOTTED]
        if len({r['case'] for r in plotted}) > 2:
            name = f'{group}-{mode}-{where.slug}.png'
            title = f'{group}, {_mode_words(mode, metric).split(",")[0]}\n{where}'
            files[name] = lambda plotted=plotted, title=title: plot(plotted, title)
            text.append(f'![{group}, {mode}: ratios of NC by shape]({name})\n')
        text.append(markdown(_table(found, metric)) + '\n')
    return {'README.md': '\n'.join(text), **files}


def _acceptance(rows: Sequence[Row]) -> list[str]:
    def tables(title: str, figures, fits: Callable[[Context], bool], unmeasured: str) -> list[str]:
        places = [where for where in unique(map(context, rows)) if fits(where)]
        parts = []
        for where in places or [None]:
            those = [row for row in rows if context(row) == where]
            heading = f'### {title}' + (f': {where}' if where else '')
            table = figure_table(figures, those, unmeasured if where is None else 'not measured')
            parts.append(f'{heading}\n\n{markdown(table)}\n')
        return parts

    def cpu(where: Context) -> bool:
        return where.on_cpu and where[1:] == ('2', 'float32', 'nchw')

    def gpu(where: Context) -> bool:
        return not where.on_cpu and where[2:] == ('bfloat16', 'channels_last')

    return [
        '## What NC is held to\n\nShapes are those of ResNet-50 at 224 pixels, systems have gain '
        'and bias. "As a pair" is the same figure of nc-pair.\n',
        *tables('Batch 2 on a CPU', CPU_FIGURES, cpu, 'not measured: no rows in results.csv'),
        *tables('On a GPU', GPU_FIGURES, gpu, 'not measured: no CUDA device at hand'),
    ]


def _origin(rows: Sequence[Row]) -> str:
    def words(name: str) -> str:
        return ', '.join(unique(row[name] for row in rows if row[name]))

    days = ', '.join(unique(row['utc'][:10] for row in rows))
    return f'Commit {words("commit")}, torch {words("torch")}, triton {words("triton")}; {days}.'


_PLOTTED = {'time / conv+gn': '#0072B2', 'time / conv': '#E69F00'}  # metric -> colour


def plot(rows: Sequence[Row], title: str) -> bytes:
    """A PNG with a bar for each shape and ratio, and its quantiles as a line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    cases = unique(row['case'] for row in rows)[::-1]  # the first on top
    canvas = Canvas(figsize=(7.5, 1.4 + 0.3 * len(cases)), dpi=100, layout='constrained')
    FigureCanvasAgg(canvas)
    ax = canvas.subplots()
    for i, (metric, colour) in enumerate(_PLOTTED.items()):
        those = [row for row in rows if row['metric'] == metric]
        at = [cases.index(row['case']) + 0.2 - 0.4 * i for row in those]
        low, middle, high = ([float(row[q]) for row in those] for q in ('q20', 'q50', 'q80'))
        ax.barh(at, middle, 0.38, color=colour, label=f'NC / ({metric.split(" / ")[1]})')
        ax.hlines(at, low, high, color='black', linewidth=1)
    ax.axvline(1, color='black', linewidth=0.8)
    ax.set_yticks(range(len(cases)), [CASES[case].label for case in cases], fontsize=8)
    ax.set(xlabel='ratio, lower is better for NC')
    ax.set_title(title, fontsize=9)
    ax.margins(y=0.01)
    ax.spines[['top', 'right']].set_visible(False)
    ax.legend(fontsize=8, frameon=False, loc='lower right')
    file = io.BytesIO()
    canvas.savefig(file, format='png')
    return file.getvalue()


def write(folder: Path, rows: Sequence[Row]) -> None:
    """The page and its plots; plots of an older page go."""
    files = pages(rows)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob('*.png'):
        old.unlink()
    for name, content in files.items():
        if isinstance(content, str):
            (folder / name).write_text(content)
        else:
            (folder / name).write_bytes(content())


def up_to_date(folder: Path, rows: Sequence[Row]) -> bool:
    """Whether the page is what ``write`` would write, and its plots are there."""
    files = pages(rows)
    page = folder / 'README.md'
    there = {file.name for file in folder.glob('*.png')}
    return page.exists() and page.read_text() == files.pop('README.md') and there == {*files}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--check', action='store_true', help='write nothing, exit 1 if stale')
    args = parser.parse_args(argv)
    rows = results.read(results.RESULTS)
    if not args.check:
        write(FOLDER, rows)
    elif not up_to_date(FOLDER, rows):
        print('docs/benchmarks is stale: run python benchmarks/report.py', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
