#!/usr/bin/env python3
"""Draw the tables and figures of docs/results/micro-batch from its CSV files.

python studies/report.py            # write the page and its figures
python studies/report.py --check    # exit 1 if the page is out of date
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from nc_plugins.report import markdown  # noqa: E402
from nc_plugins.report.statistics import PairedTest, compare_paired  # noqa: E402
from studies.figures import rates_png, sensitivity_png  # noqa: E402
from studies.probes import (  # noqa: E402
    CALIBRATION,
    LABELS,
    SENSITIVITY,
    SMOOTHNESS,
    mean_std,
    probe_sections,
)
from studies.results import FOLDER, Row, read_lines, read_rows  # noqa: E402
from studies.worklist import (  # noqa: E402
    PAPER_RATE,
    QUESTIONS,
    RATES,
    TEST,
    VALIDATION,
    Question,
    Setting,
    best_rate,
    trials,
)

PAGE = 'README.md'
TITLES = {
    'batch2': 'Batches of two',
    'others': 'Other norms, batches of two',
    'variants': 'Variants of NC, batches of two',
    **{f'batch{n}': f'Batches of {n}' for n in (4, 8, 32, 128)},
    'batch1': 'Batches of one',
    'momentum': 'SGD with momentum',
    'adam': 'Adam',
    'adamw': 'AdamW',
    'rmsprop': 'RMSProp',
}
INTRO = """\
# Micro-batch comparison

`python studies/report.py` writes this page from the CSV files beside it. `python studies/run.py`
trains what is missing. [The protocol](../protocol.md) defines data, training, learning rates and
statistics of the comparison of norms. The other sections are separate studies, which it does not
cover. Do not edit this page by hand.
"""
NOTES = """\
Accuracies are top-1 in percent on the 10,000 test images, mean ± standard deviation over the
seeds, after the last epoch. Δ is the mean difference to the first row over the seeds that both
have, in brackets its 95 % t-interval. p is the sign-flip test with Holm's correction, then the
smallest uncorrected value that the number of pairs allows.
"""
TUNING = """\
Validation accuracy by learning rate (%), one seed. The best rate of each row is bold.
"""


def label(setting: Setting) -> str:
    return LABELS.get(setting.config, setting.config.replace('_', ', ').replace('nc', 'NC', 1))


def page(rows: Mapping[str, Row], files: Mapping[str, Sequence[dict]]) -> str:
    """The whole page.

    Args:
        rows: the trainings.
        files: the lines of the other CSV files by name.
    """
    parts = [INTRO]
    if not any(row.split == TEST for row in rows.values()):
        parts.append(
            f'The comparison of norms has no result yet: {len(rows)} trainings have finished, all '
            'of them to choose learning rates.'
        )
    for question in QUESTIONS:
        section = list(question_section(question, rows))
        if section:
            parts += [f'## {TITLES[question.name]}', *section]
    parts += probe_sections(files)
    parts += [conditions(rows.values())]
    return '\n\n'.join(part.strip() for part in parts if part) + '\n'


def question_section(question: Question, rows: Mapping[str, Row]) -> Iterator[str]:
    accuracy = {name: row.top1 for name, row in rows.items()}
    wanted = list(trials(question, accuracy))
    done = [trial for trial in wanted if trial.name in rows]
    if {trial.setting for trial in done} <= {question.settings[0]}:
        return  # another question has trained the baseline
    if len(done) < len(wanted):
        yield f'Not complete: {len(done)} of {len(wanted)} trainings known so far have finished.'
    rates = {setting: best_rate(setting, accuracy) for setting in question.settings}
    if None not in rates.values():
        yield from accuracy_tables(question, rates, rows)
    yield TUNING
    yield tuning_table(question, rows)
    if question.name == 'batch2':
        yield '![Validation accuracy by learning rate](rates.png)'


def accuracy_tables(
    question: Question, rates: Mapping[Setting, float], rows: Mapping[str, Row]
) -> Iterator[str]:
    own = {setting: final_runs(setting, rate, rows) for setting, rate in rates.items()}
    if any(own.values()):
        yield 'Each method at its own learning rate:'
        yield accuracy_table(own)
    paper = {setting: final_runs(setting, PAPER_RATE, rows) for setting in question.settings}
    if question.paper_rate and all(paper.values()):
        yield 'All methods at the learning rate of the paper:'
        yield accuracy_table(paper)
    if any(own.values()):
        yield NOTES


def final_runs(setting: Setting, rate: float, rows: Mapping[str, Row]) -> dict[int, Row]:
    """The final trainings by seed."""
    return {
        row.seed: row
        for row in rows.values()
        if (row.config, row.batch, row.rate, row.split)
        == (setting.config, setting.batch, rate, TEST)
    }


def accuracy_table(runs: Mapping[Setting, Mapping[int, Row]]) -> str:
    top1 = {s: {seed: row.top1 for seed, row in by_seed.items()} for s, by_seed in runs.items()}
    baseline = next(iter(top1))
    others = {label(s): values for s, values in top1.items() if s != baseline}
    tests = compare_paired(top1[baseline], others)
    head = ['method', 'learning rate', 'seeds', 'top-1 accuracy (%)', 'test loss (nats)']
    lines = []
    for setting, by_seed in runs.items():
        if not by_seed:
            continue
        some = list(by_seed.values())
        test = tests.get(label(setting))
        lines.append([
            label(setting),
            f'{some[0].rate:g}',
            str(len(some)),
            mean_std([row.top1 for row in some], 1),
            mean_std([row.val_loss for row in some], 2),
            *(test_cells(test) if test else ['baseline', '', '']),
        ])  # fmt: skip
    return markdown(([*head, 'Δ accuracy (%)', 'p', 'evidence'], lines))


def test_cells(test: PairedTest) -> list[str]:
    if test.mean is None:
        return ['-', '-', test.evidence.value]
    if test.interval is None:
        return [f'{test.mean:+.1f}', '-', test.evidence.value]
    low, high = test.interval
    p = f'{test.adjusted_p:.3f} ({test.smallest_p:.3f})'
    return [f'{test.mean:+.1f} [{low:+.1f}, {high:+.1f}]', p, test.evidence.value]


def tuning_runs(setting: Setting, rows: Mapping[str, Row]) -> dict[float, float]:
    """Validation accuracy by learning rate."""
    return {
        row.rate: row.top1
        for row in rows.values()
        if (row.config, row.batch, row.split) == (setting.config, setting.batch, VALIDATION)
    }


def tuning_table(question: Question, rows: Mapping[str, Row]) -> str:
    tuning = {setting: tuning_runs(setting, rows) for setting in question.settings}
    rates = [rate for rate in RATES if any(rate in values for values in tuning.values())]
    lines = []
    for setting, values in tuning.items():
        cells = {rate: f'{values[rate]:.1f}' if rate in values else '' for rate in rates}
        if values:
            best = max(sorted(values), key=values.get)
            cells[best] = f'**{cells[best]}**'
        lines.append([label(setting), *cells.values()])
    return markdown((['method', *(f'{rate:g}' for rate in rates)], lines))


def conditions(rows: Sequence[Row]) -> str:
    rows = list(rows)
    if not rows:
        return ''
    devices = ', '.join(sorted({row.device for row in rows}))
    commits = ', '.join(sorted({row.commit[:10] + row.commit[40:] for row in rows}))
    threads = ', '.join(sorted({str(row.threads) for row in rows}))
    dates = sorted(row.utc_end[:10] for row in rows)
    hours = sum(row.seconds for row in rows) / 3600
    torches = ', '.join(sorted({row.torch for row in rows}))
    return (
        f'## Conditions\n\n{len(rows)} trainings from {dates[0]} to {dates[-1]}, {hours:.1f} hours '
        f'in all, CPU threads: {threads}, on {devices}, torch {torches}, commits {commits}. '
        'Other programs ran on the machine, so the speeds in runs.csv mean little.'
    )


def read_files() -> dict[str, list[dict]]:
    """The CSV files beside that of the trainings."""
    return {name: read_lines(FOLDER / name) for name in (SENSITIVITY, SMOOTHNESS, CALIBRATION)}


def figures(rows: Mapping[str, Row], files: Mapping[str, Sequence[dict]]) -> dict[str, bytes]:
    """The figures of the page by file name."""
    batch2 = next(question for question in QUESTIONS if question.name == 'batch2')
    curves = {label(setting): tuning_runs(setting, rows) for setting in batch2.settings}
    return {
        'rates.png': rates_png(curves),
        'sensitivity.png': sensitivity_png(files[SENSITIVITY]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--check', action='store_true', help='write nothing')
    args = parser.parse_args()
    rows = read_rows()
    files = read_files()
    text = page(rows, files)
    contents = {PAGE: text.encode(), **figures(rows, files)}
    if not args.check:
        for name, content in contents.items():
            (FOLDER / name).write_bytes(content)
        return 0
    old = [name for name, content in contents.items() if (FOLDER / name).read_bytes() != content]
    if old:
        print(f'{", ".join(old)}: out of date, run python studies/report.py', file=sys.stderr)
    return int(bool(old))


if __name__ == '__main__':
    sys.exit(main())
