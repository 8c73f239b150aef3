"""Write the tables and plots of docs/benchmarks from results.csv.

python benchmarks/report.py            # write docs/benchmarks
python benchmarks/report.py --check    # exit 1 if docs/benchmarks is out of date
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import results
from cases import CASES, Conv, Model
from plots import PLOTTED, plot
from results import Row, geometric_mean
from targets import CPU_TARGETS, GPU_TARGETS, Table, Target, target_table

from nc_plugins.report import markdown

FOLDER = Path(__file__).parents[1] / 'docs' / 'benchmarks'
INTRO = """\
# Benchmarks

`python benchmarks/report.py` writes this page from
[results.csv](../../benchmarks/results.csv). `python benchmarks/run.py` measures and adds rows to
that file; `python benchmarks/run.py --help` describes the method. Do not edit this page by hand.

## How to read the tables

- A ratio below 1 means that NC is faster or needs less memory.
- A ratio is the median, over all rounds, of the quotient of two systems in the same round. The
  brackets hold its 20 % and 80 % quantiles.
- "Geometric mean" is over the distinct shapes of a network, without weights. "Network" weighs each
  shape by its count in the network (the sum of median times).
- Times are in milliseconds, those of the group "overhead" in microseconds. Memory is in MB (1e6
  bytes).
- The systems of one case run in alternation in one process. Before that, every NC system is
  compared with the im2col definition in float64, output and all gradients.

| system | meaning |
| :-- | :-- |
| nc | `NCConv2d(affine=True)`, backend chosen by `'auto'` |
| nc-pair | `NCConv2d` and `NCAffine`, joined by `join_affines`, as configs use them |
| nc-split | the same pair, not joined: the affine is a separate pass |
| nc-cpu, nc-aten, nc-triton | `NCConv2d(affine=True)` on one backend |
| nc-cpu-deployed, and so on | the same after `nc_plugins.deploy`, for inference only |
| definition | `NCConv2d(affine=True)` on the `reference` backend: im2col in plain torch |
| conv | the convolution without a norm |
| conv+gn | convolution and GroupNorm with 32 groups; this and all norms below have gain and bias |
| conv+bn | convolution and BatchNorm, with running statistics in inference |
| convws+gn | mmcv's weight-standardised convolution and GroupNorm with 32 groups |
| conv+pn | convolution and PositionalNorm |
"""
CAVEATS = """\
## Caveats

- All CPU numbers come from two cores of an AMD EPYC. The rows of 2026-11-25 come from a processor
  with AVX2, all earlier rows from one with AVX-512. They cannot be compared with each other. On
  the AVX2 processor, three interleaved runs of the version before 2026-11-25 and of this one over
  nine ResNet-50 shapes gave geometric means NC / (conv + GN) of 0.99 and 1.00 in training, and of
  1.08 and 1.00 in inference.
- Runs differ. Eight runs of the ResNet-50 training step on 2026-11-24 gave ratios NC / GN from
  0.97 to 1.05, and ResNet-18/CIFAR gave 0.94 to 1.02.
- Deep layers (small images, many channels) are slower when the machine's two cores share no
  cache. A cache line then takes 170 ns from one core to the other, and 30 ns otherwise.
- In bfloat16 autocast the `cpu` backend computes in float32. It does not use the bfloat16
  instructions of the processor, which the plain convolution does.
- In channels_last the backward pass of PyTorch's GroupNorm is slow. NC's training ratio is
  therefore lower than in NCHW.
- Our targets for im2col / NC were 3.5 and 14. Even a plain convolution reached only 2.6 and 13 on
  this machine (2026-11-24).
- The `triton` backend has not been timed on a GPU. Its targets are listed as open.
"""


class Context(NamedTuple):
    """The conditions that all rows of a table share."""

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


# Tables of all measurements


class Section(NamedTuple):
    """The rows of one group, mode, metric and context, ratios included."""

    group: str
    mode: str
    metric: str
    where: Context
    rows: list[Row]

    @property
    def unit(self) -> str:
        if self.metric != 'time':
            return 'MB'
        return 'µs' if any(_is_tiny(row['case']) for row in self.rows) else 'ms'

    @property
    def title(self) -> str:
        if self.metric == 'kept':
            return f'{self.group}, MB kept for backward'
        if self.metric == 'peak':
            return f'{self.group}, peak MB of a training step'
        words = {'fwd': 'inference', 'train': 'training', 'bwd': 'backward'}[self.mode]
        return f'{self.group}, {words}, {self.unit}'


def timings(rows: Sequence[Row]) -> list[tuple[str, Table]]:
    """Title and table for each group, mode, metric and context."""
    return [(f'{section.title}: {section.where}', _table(section)) for section in _sections(rows)]


def _sections(rows: Sequence[Row]) -> Iterator[Section]:
    sections: dict[tuple, list[Row]] = {}
    for row in rows:
        group, metric = row['case'].split('/')[0], row['metric'].split(' / ')[0]
        sections.setdefault((group, row['mode'], metric, context(row)), []).append(row)
    for key, found in sections.items():
        yield Section(*key, found)


def _is_tiny(case: str) -> bool:
    return isinstance(CASES[case], Conv) and CASES[case].calls > 1


def _table(section: Section) -> Table:
    rows, metric = section.rows, section.metric
    found = {(r['case'], r['system'], r['metric']): r for r in rows}
    names = unique(r['system'] for r in rows)
    ratios = [
        (system, f'{metric} / {base}')
        for system, base in (
            ('nc', 'conv+gn'), ('nc', 'conv'), ('nc', 'convws+gn'), ('nc-pair', 'conv+gn'),
            ('nc-pair', 'nc'), ('nc-cpu-deployed', 'nc-cpu'), ('nc-aten-deployed', 'nc-aten'),
            ('nc-triton-deployed', 'nc-triton'), ('definition', 'nc'),
        )
        if any((r['system'], r['metric']) == (system, f'{metric} / {base}') for r in rows)
    ]  # fmt: skip
    header = ['case', 'count', *names, *(f'{s} {m[len(metric) + 1 :]}' for s, m in ratios)]
    table = []
    for case in unique(r['case'] for r in rows):
        row = [CASES[case].label, str(getattr(CASES[case], 'count', 1))]
        cells = (found.get((case, name, metric)) for name in names)
        row += [
            '-' if cell is None else _number(float(cell['q50']), section.unit) for cell in cells
        ]
        cells = (found.get((case, *ratio)) for ratio in ratios)
        row += ['-' if cell is None else _ratio(cell) for cell in cells]
        table.append(row)
    if len(table) > 1 and not any(isinstance(CASES[r['case']], Model) for r in rows):
        table += _totals(found, names, ratios, section)
    return header, table


def _totals(found, names, ratios, section: Section) -> list[list[str]]:
    cases = unique(case for case, _, _ in found)

    def over_network(system: str) -> float | None:
        cells = {case: found.get((case, system, section.metric)) for case in cases}
        if None in cells.values():
            return None
        return sum(CASES[case].count * float(cell['q50']) for case, cell in cells.items())

    totals = {name: over_network(name) for name in names}
    network = ['network', '']
    network += ['-' if total is None else _number(total, section.unit) for total in totals.values()]
    mean = ['geometric mean', '', *[''] * len(names)]
    for system, ratio in ratios:
        cells = [found.get((case, system, ratio)) for case in cases]
        values = [float(cell['q50']) for cell in cells if cell]
        mean.append(f'{geometric_mean(values):.3f}')
        over, under = totals.get(system), totals.get(ratio.split(' / ')[1])
        network.append(f'{over / under:.3f}' if over and under else '-')
    return [network, mean]


def _number(value: float, unit: str) -> str:
    """A value of results.csv, which has milliseconds and bytes, in ``unit``."""
    return f'{value * {"ms": 1, "µs": 1e3, "MB": 1e-6}[unit]:.4g}'


def _ratio(row: Row) -> str:
    text = f'{float(row["q50"]):.3f}'
    same = row['q20'] == row['q80']
    return text if same else f'{text} [{float(row["q20"]):.2f}, {float(row["q80"]):.2f}]'


# The page


def pages(rows: Sequence[Row]) -> dict[str, str | Callable[[], bytes]]:
    """File name -> its text, or for a plot a function that draws it as PNG."""
    position = {name: i for i, name in enumerate(CASES)}
    rows = results.latest(row for row in rows if row['case'] in CASES)
    rows.sort(key=lambda row: (position[row['case']], *context(row)))
    files: dict[str, str | Callable[[], bytes]] = {}
    text = [INTRO, *_targets(rows), *_losses(rows), CAVEATS]
    for section in _sections(rows):
        text.append(f'## {section.title}\n\n{section.where}. {_origin(section.rows)}\n')
        plotted = [r for r in section.rows if r['system'] == 'nc' and r['metric'] in PLOTTED]
        if len({r['case'] for r in plotted}) > 2:
            name = f'{section.group}-{section.mode}-{section.where.slug}.png'
            title = f'{section.title.rpartition(",")[0]}\n{section.where}'
            files[name] = lambda plotted=plotted, title=title: plot(plotted, title)
            text.append(f'![{section.group}, {section.mode}: ratios of NC by shape]({name})\n')
        text.append(markdown(_table(section)) + '\n')
    return {'README.md': '\n'.join(text), **files}


def _targets(rows: Sequence[Row]) -> list[str]:
    def tables(
        title: str, targets: Sequence[Target], fits: Callable[[Context], bool], unmeasured: str
    ) -> list[str]:
        places = [where for where in unique(map(context, rows)) if fits(where)]
        parts = []
        for where in places or [None]:
            those = [row for row in rows if context(row) == where]
            heading = f'### {title}' + (f': {where}' if where else '')
            table = target_table(targets, those, unmeasured if where is None else 'not measured')
            parts.append(f'{heading}\n\n{markdown(table)}\n')
        return parts

    def cpu(where: Context) -> bool:
        return where.on_cpu and where[1:] == ('2', 'float32', 'nchw')

    def gpu(where: Context) -> bool:
        return not where.on_cpu and where[2:] == ('bfloat16', 'channels_last')

    return [
        '## Targets\n\nThe limit must hold; the goal is where we would like to be. The shapes are '
        'those of ResNet-50 at\n224 pixels. The column "joined pair" has the same ratio for '
        'nc-pair. "Open" means not measured.\n',
        *tables('Batch 2 on a CPU', CPU_TARGETS, cpu, 'not measured: no rows in results.csv'),
        *tables('On a GPU', GPU_TARGETS, gpu, 'not measured: no GPU has been timed'),
    ]


def _losses(rows: Sequence[Row]) -> list[str]:
    """The shapes at which NC is slower, or takes more memory, than convolution + GroupNorm."""
    table = []
    for section in _sections(rows):
        metric = f'{section.metric} / conv+gn'
        ratios = {
            row['case']: float(row['q50'])
            for row in section.rows
            if (row['system'], row['metric']) == ('nc', metric)
        }
        if not ratios:
            continue
        slower = sorted((case for case in ratios if ratios[case] > 1), key=ratios.get, reverse=True)
        worst = [f'{CASES[case].label} ({ratios[case]:.2f})' for case in slower[:_LOSSES_SHOWN]]
        hidden = len(slower) - len(worst)
        table.append(
            [
                section.title.removesuffix(f', {section.unit}'),
                f'{section.where.dtype}, {section.where.layout}',
                f'{geometric_mean(list(ratios.values())):.3f}',
                f'{len(slower)} of {len(ratios)}',
                ('; '.join(worst) + (f'; and {hidden} more' if hidden else '')) or '-',
            ]
        )
    if not table:
        return []
    header = ['measurement', 'dtype, layout', 'geometric mean', 'above 1', 'cases above 1']
    return [
        '## Losses\n\nRatios NC / (conv + GN) above 1, the largest first.\n',
        markdown((header, table)) + '\n',
    ]


def _origin(rows: Sequence[Row]) -> str:
    def words(name: str) -> str:
        return ', '.join(unique(row[name] for row in rows if row[name]))

    days = ', '.join(unique(row['utc'][:10] for row in rows))
    return f'Commit {words("commit")}, torch {words("torch")}, triton {words("triton")}; {days}.'


_LOSSES_SHOWN = 5  # cases listed in a row of the table of losses


def write(folder: Path, rows: Sequence[Row]) -> None:
    """Write the page and its plots, and delete the plots of an older page."""
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
    """Whether ``write`` would write the same page and plots of the same names."""
    files = pages(rows)
    page = folder / 'README.md'
    plots = {file.name for file in folder.glob('*.png')}
    return page.exists() and page.read_text() == files.pop('README.md') and plots == {*files}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--check', action='store_true', help='write nothing; exit 1 if out of date')
    args = parser.parse_args(argv)
    rows = results.read(results.RESULTS)
    if not args.check:
        write(FOLDER, rows)
    elif not up_to_date(FOLDER, rows):
        print('docs/benchmarks is out of date: run python benchmarks/report.py', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
