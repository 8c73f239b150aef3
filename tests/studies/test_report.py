"""The page of the study follows from its CSV files."""

import io

import numpy as np
from PIL import Image

from studies.probes import calibration_table, smoothness_table
from studies.report import (
    PAGE,
    accuracy_table,
    figures,
    final_runs,
    page,
    read_files,
    tuning_table,
)
from studies.results import FOLDER, read_rows
from studies.worklist import TEST, VALIDATION, Question, Setting

from .test_results import row

GN, NC = Setting('gn'), Setting('nc')


def runs(config, rate, *top1, split=TEST):
    return [
        row(f'{config}{rate}{seed}{split}', value, config=config, rate=rate, seed=seed, split=split)
        for seed, value in enumerate(top1)
    ]


def test_the_committed_page_is_that_of_the_committed_files():
    text = page(read_rows(), read_files())
    assert (FOLDER / PAGE).read_text() == text, 'run python studies/report.py'


def test_accuracies_are_compared_by_seed():
    rows = {r.name: r for r in [*runs('gn', 0.1, 30, 32, 34), *runs('nc', 0.01, 40, 41, 45)]}
    table = accuracy_table({s: final_runs(s, r, rows) for s, r in ((GN, 0.1), (NC, 0.01))})
    gn, nc = table.splitlines()[2:]
    assert gn.startswith('| GN | 0.1 | 3 | 32.0 ± 2.0 |') and 'baseline' in gn
    # Differences 10, 9 and 11: mean 10, standard error 1 / sqrt(3), t(2, 97.5 %) = 4.303.
    assert nc.startswith('| NC | 0.01 | 3 | 42.0 ± 2.6 |')
    assert '+10.0 [+7.5, +12.5] | 0.250 (0.250) | weak |' in nc


def test_no_verdict_from_two_pairs():
    rows = {r.name: r for r in [*runs('gn', 0.1, 30, 32), *runs('nc', 0.01, 40, 41)]}
    table = accuracy_table({s: final_runs(s, r, rows) for s, r in ((GN, 0.1), (NC, 0.01))})
    assert table.splitlines()[-1].endswith('+9.5 | - | untested |')


def test_the_best_learning_rate_is_bold():
    some = [runs('gn', rate, 20 + 100 * rate, split=VALIDATION)[0] for rate in (0.01, 0.03)]
    table = tuning_table(Question('q', (GN, NC), 1), {r.name: r for r in some})
    assert table.splitlines() == [
        '| method | 0.01 | 0.03 |',
        '| :-- | --: | --: |',
        '| GN | 21.0 | **23.0** |',
        '| NC |  |  |',
    ]


def test_the_committed_figures_are_those_of_the_committed_files():
    """Compared as pixels, which do not depend on the compression of the PNG."""
    for name, content in figures(read_rows(), read_files()).items():
        assert (FOLDER / name).read_bytes().startswith(b'\x89PNG')
        drawn, committed = (np.asarray(Image.open(f)) for f in (io.BytesIO(content), FOLDER / name))
        np.testing.assert_array_equal(drawn, committed, 'run python studies/report.py')


def test_calibration_is_the_mean_of_the_seeds():
    lines = [
        {'to': to, 'start': start, 'seed': seed, 'steps': steps, 'top1': top1 + seed}
        for to, start, steps, top1 in (
            ('BN', '', 500, 95),
            ('NC', 'calibrated', 0, 60),
            ('NC', 'calibrated', 100, 80),
        )
        for seed in range(3)
    ]
    assert calibration_table(lines).splitlines() == [
        '| converted to | start | at once | after 100 steps |',
        '| :-- | --: | --: | --: |',
        '| NC | calibrated | 61.0 ± 1.0 | 81.0 ± 1.0 |',
        '| the BatchNorm network |  | 96.0 ± 1.0 |  |',
    ]


def test_smoothness_is_the_median_of_the_stops():
    lines = [
        {'method': 'nc', 'loss_low': -1, 'loss_high': high, 'gradient_change': high, 'beta': 10}
        for high in (1, 2, 9)
    ]
    assert smoothness_table(lines).splitlines()[2:] == ['| NC | 3.00 | 2.00 | 10 |']
