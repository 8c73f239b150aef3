import csv
import io
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import nc_plugins.report as report
from nc_plugins.records import Record
from nc_plugins.report.runs import Run
from nc_plugins.report.verdict import answer, caveats, verdicts

RECORD = Record(
    images_per_second=100.0,
    peak_memory_mb=512.4,
    memory_kind='process peak RSS',
    device='CPU x',
    threads=2,
    torch='2.11.0',
    commit='c0ffee',
    utc_start='2025-01-01T00:00:00+00:00',
    utc_end='2025-01-01T00:10:00+00:00',
    census={'NC': 20, 'conv': 0, 'NCAffine': 20},
)


def run(config, seed, top1, loss=0.5, val_loss=(1.0, 0.8), status='finished', **record):
    """A run of two epochs. ``top1`` is the accuracy after the second."""
    validations = [
        (1, {'accuracy/top1': top1 - 10, 'val/loss': val_loss[0]}),
        (2, {'accuracy/top1': top1, 'val/loss': val_loss[1]}),
    ]
    return Run(
        config,
        seed,
        Path('runs') / config / str(seed),
        status=status,
        why='',
        max_x=2,
        train=[(1, 2.0), (2, loss)],
        validations=validations,
        record=replace(RECORD, **record),
        command=f'python tools/train.py {config}',
    )


def missing(config, seed, why='exit code 1'):
    return Run(config, seed, Path('nowhere'), why=why, max_x=2, train=[(1, 2.0)])


def column(table, name):
    header, rows = table
    return [row[header.index(name)] for row in rows]


GN, NC = 'configs/gn.py', 'configs/nc.py'


def test_means_and_sample_deviations():
    # By hand: 40, 42, 47 has mean 43 and sum of squares 9 + 1 + 16 = 26, so sqrt(26 / 2) = 3.61.
    runs = [run(GN, 0, 40.0), run(GN, 1, 42.0), run(GN, 2, 47.0), run(NC, 0, 45.5)]
    table = report.comparison_table(report.summarize(runs))
    assert column(table, 'config') == ['gn', 'nc']
    assert column(table, 'seeds') == ['3', '1']
    assert column(table, 'top-1 accuracy (%)') == ['43.00 ± 3.61', '45.50 ± -']
    # Over the seeds that both have: 45.5 - 40.
    assert column(table, 'Δ top-1 accuracy (%)') == ['baseline', '+5.50']
    assert column(table, 'final training loss') == ['0.500 ± 0.000', '0.500 ± -']
    assert column(table, 'validation loss, last') == ['0.800 ± 0.000', '0.800 ± -']
    assert column(table, 'images/s') == ['100.0 ± 0.0', '100.0 ± -']
    assert column(table, 'peak memory (MiB)') == ['512', '512']


def test_best_is_the_best_validation_of_each_run():
    runs = [run(GN, 0, 40.0, val_loss=(0.6, 0.9)), run(GN, 1, 40.0, val_loss=(0.8, 0.7))]
    table = report.comparison_table(report.summarize(runs))
    assert column(table, 'validation loss, last') == ['0.800 ± 0.141']
    assert column(table, 'validation loss, best') == ['0.650 ± 0.071']


def test_missing_runs_are_shown_everywhere(tmp_path):
    runs = [run(GN, 0, 40.0), missing(GN, 1), missing(NC, 0), missing(NC, 1, 'never started')]
    summaries = report.summarize(runs)
    table = report.comparison_table(summaries)
    assert column(table, 'seeds') == ['1 of 2 (1 missing)', '0 of 2 (2 missing)']
    assert column(table, 'top-1 accuracy (%)') == ['40.00 ± -', 'missing']
    assert column(report.seeds_table(summaries), 'status') == [
        'finished',
        'missing: exit code 1',
        'missing: exit code 1',
        'missing: never started',
    ]
    assert verdicts(summaries) == ['nc has no finished run.']
    said = caveats(summaries)
    assert 'gn: seed 1 missing; its means cover the other seeds only.' in said
    assert 'nc: all runs are missing (seeds 0, 1).' in said
    rows = list(csv.DictReader(io.StringIO(report.results_csv(runs))))
    assert [row['status'] for row in rows] == ['finished', 'missing', 'missing', 'missing']
    assert [row['accuracy/top1'] for row in rows] == ['40.0', '', '', '']
    assert report.write_report(tmp_path, runs).exists()


def test_a_missing_baseline_gives_no_difference():
    summaries = report.summarize([missing(GN, 0), run(NC, 0, 45.0)])
    assert column(report.comparison_table(summaries), 'Δ top-1 accuracy (%)') == ['missing', '-']
    assert verdicts(summaries) == [
        'gn, the baseline, has no finished run, so there is no comparison.'
    ]


def test_a_diverged_run_is_named_and_never_averaged_away():
    bad = run(NC, 1, 10.0, loss=math.nan, val_loss=(1.0, math.nan), status='diverged')
    summaries = report.summarize([run(GN, 0, 40.0), run(GN, 1, 40.0), run(NC, 0, 50.0), bad])
    table = report.comparison_table(summaries)
    assert column(table, 'seeds') == ['2', '2, 1 diverged']
    assert column(table, 'final training loss') == ['0.500 ± 0.000', 'nan ± nan']
    assert column(table, 'top-1 accuracy (%)') == ['40.00 ± 0.00', '30.00 ± 28.28']
    assert any('nc: seed 1 diverged' in line for line in caveats(summaries))
    assert any('no finite mean' in line for line in verdicts(summaries))


GN_TOP1 = (40.0, 42.0, 41.0, 43.0, 39.0, 41.0)


def compared(top1, gn=GN_TOP1, name=NC):
    """Summaries of GN with the accuracies ``gn`` and of another config with ``top1``, by seed."""
    return report.summarize(
        [run(c, seed, t) for c, values in ((GN, gn), (name, top1)) for seed, t in enumerate(values)]
    )


@pytest.mark.parametrize(
    ('top1', 'verdict', 'answer_begins'),
    [
        (
            (45.0, 47.0),
            'nc is 5.00 higher than the baseline (better), over 2 pairs of seeds. '
            'A verdict needs at least 3 pairs.',
            'No verdict between nc and gn in top-1 accuracy (%): 46.00 against 41.00, +5.00 over 2 '
            'pairs of seeds, and a verdict needs 3.',
        ),
        (
            # Differences 1, 2, 3: see test_statistics.py.
            (41.0, 44.0, 44.0),
            'nc is 2.00 higher than the baseline (better), over 3 pairs of seeds (95 % interval '
            '-0.48 to +4.48; p 0.25, smallest possible 0.25). '
            'This does not show which one is better.',
            'These runs do not show which is better in top-1 accuracy (%), nc or gn: 43.00 against',
        ),
        (
            (45.0, 47.1, 46.0),
            'nc is 5.03 higher than the baseline (better), over 3 pairs of seeds (95 % interval '
            '+4.89 to +5.18; p 0.25, smallest possible 0.25). '
            'Weak evidence: the interval excludes 0, but p is above 0.05.',
            'There is weak evidence that nc is better than gn in top-1 accuracy (%): 46.03 against',
        ),
        (
            tuple(value - 5 for value in GN_TOP1),
            'nc is 5.00 lower than the baseline (worse), over 6 pairs of seeds (95 % interval '
            '-5.00 to -5.00; p 0.031, smallest possible 0.031). '
            'Both the interval and p show a difference.',
            'nc is worse than gn in top-1 accuracy (%): 36.00 against 41.00, -5.00 over 6 pairs',
        ),
        (
            (40.1, 42.1, 41.1, 43.1, 39.1, 50.0),
            'nc is 1.58 higher than the baseline (better), over 6 pairs of seeds (95 % interval '
            '-2.23 to +5.40; p 0.031, smallest possible 0.031). '
            'Weak evidence: p is small, but the interval includes 0.',
            'There is weak evidence that nc is better than gn',
        ),
        (
            GN_TOP1,
            'nc and the baseline are equal to the digits shown, over 6 pairs of seeds (95 % '
            'interval +0.00 to +0.00; p 1, smallest possible 0.031). '
            'This does not show which one is better.',
            'These runs do not show which is better in top-1 accuracy (%), nc or gn',
        ),
    ],
)
def test_differences_are_tested_over_pairs_of_seeds(top1, verdict, answer_begins):
    summaries = compared(top1)
    assert verdicts(summaries)[0] == f'top-1 accuracy (%): {verdict}'
    assert answer(summaries).startswith(answer_begins)
    assert answer(summaries).count('. ') == 0  # one sentence


def test_the_answer_without_a_comparison():
    gone = report.summarize([missing(GN, 0), run(NC, 0, 45.0)])
    assert answer(gone) == 'There is no answer yet: gn, the baseline, has no finished run.'
    gone = report.summarize([run(GN, 0, 45.0), missing(NC, 0)])
    assert answer(gone) == 'There is no answer yet: nc has no finished run.'
    assert answer(report.summarize([run(GN, 0, 45.0)])) == (
        'gn reaches 45.00 in top-1 accuracy (%), without a comparison.'
    )
    apart = report.summarize([run(GN, 0, 45.0), run(NC, 1, 45.0)])
    assert answer(apart) == 'nc and gn cannot be compared: they have no seed in common.'
    bare = run(GN, 0, 45.0)
    bare.validations = []
    assert (
        answer(report.summarize([bare])) == 'There is no answer: the trainings recorded no metric.'
    )


def test_the_answer_for_several_configs_is_corrected_by_holm():
    values = {
        'clear': [v + 5 + 0.1 * i for i, v in enumerate(GN_TOP1)],
        'mixed': [v + (-1) ** i for i, v in enumerate(GN_TOP1)],
        'short': [45.0],
        'bad': [math.nan] * 6,
    }
    runs = [run(GN, seed, value) for seed, value in enumerate(GN_TOP1)]
    for name, top1 in values.items():
        runs += [run(f'configs/{name}.py', seed, value) for seed, value in enumerate(top1)]
    # Without 'mixed', which is tested too, p of 'clear' would be 0.031.
    assert answer(report.summarize(runs)) == (
        'Against gn in top-1 accuracy (%): clear is better, with weak evidence (+5.25); '
        'mixed shows no clear difference (+0.00); short has no verdict (+5.00, 1 pair of seeds); '
        'bad cannot be compared.'
    )


def test_lower_is_better_for_losses():
    low = [run(NC, seed, 40.0, val_loss=(1.0, 0.2)) for seed in (0, 1)]
    sentences = verdicts(report.summarize([run(GN, 0, 40.0), run(GN, 1, 40.0), *low]))
    assert '0.600 lower than the baseline (better)' in sentences[1]


def test_unequal_conditions_are_caveats():
    runs = [run(GN, 0, 40.0), run(NC, 0, 41.0, device='H', threads=1, commit='bad+dirty')]
    runs[0].record.load, runs[0].record.cores = 2.4, 2
    runs[1].record.load, runs[1].record.cores = 6.8, 2
    said = '\n'.join(caveats(report.summarize(runs), jobs=2))
    assert 'different devices' in said
    assert 'CPU x, H' in said
    assert 'CPU threads' in said
    assert 'commits of nc_plugins (c0ffee, bad+dirty)' in said
    assert 'uncommitted changes' in said
    assert 'Up to 2 runs shared the machine' in said
    assert '1 of 2 runs ended on a machine with more work than cores (load up to 6.8 on 2)' in said
    assert 'torch versions' not in said
    assert caveats(report.summarize([run(GN, 0, 40.0)])) == []


def test_the_page_holds_what_a_reader_needs(tmp_path):
    config = tmp_path / 'configs' / 'gn.py'
    runs = [run(str(config), 0, 40.0), run(str(config), 1, 43.0), run(NC, 0, 45.0)]
    report.write_report(tmp_path / 'out', runs, 'python tools/compare.py a b', 'My title')
    text = (tmp_path / 'out' / 'report.md').read_text()
    for words in (
        '# My title',
        'Seeds: 0, 1. Baseline: gn.',
        '| gn | 2 | 41.50 ± 2.12 |',
        '![Training loss, validation loss and quality](curves.png)',
        '```\npython tools/compare.py a b\n```',
        'device CPU x; processes None; CPU threads 2',
        'commit c0ffee',
        '[gn](../configs/gn.py): 20 NC, 20 NCAffine',
        'trained 2025-01-01T00:00:00+00:00 to 2025-01-01T00:10:00+00:00',
    ):
        assert words in text
    assert (tmp_path / 'out' / 'curves.png').read_bytes().startswith(b'\x89PNG')
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == [
        'curves.png',
        'report.html',
        'report.md',
        'results.csv',
    ]


def test_other_tasks_get_their_own_columns(tmp_path):
    def detector(config, box, mask):
        metrics = {'coco/bbox_mAP_50': 0.5, 'coco/segm_mAP': mask, 'coco/bbox_mAP': box}
        found = run(config, 0, 0.0)
        found.validations = [(1000, metrics)]
        found.by_epoch = False
        return found

    runs = [detector(GN, 0.402, 0.364), detector(NC, 0.398, 0.371)]
    table = report.comparison_table(report.summarize(runs))
    assert column(table, 'box mAP (0-1)') == ['0.402 ± -', '0.398 ± -']
    assert column(table, 'Δ mask mAP (0-1)') == ['baseline', '+0.007']
    assert 'validation loss, last' not in table[0]
    assert 'coco/bbox_mAP_50 (best)' in report.results_csv(runs)
    assert report.write_report(tmp_path, runs).exists()


def test_each_task_has_a_section_and_a_baseline_of_its_own(tmp_path):
    runs = [run(GN, 0, 40.0), run(NC, 0, 45.0)]
    for name, value in (('det_gn', 0.4), ('det_nc', 0.5)):
        found = run(f'configs/{name}.py', 0, 0.0)
        found.validations, found.task = [(1, {'coco/segm_mAP': value})], 'CocoMetric'
        runs.append(found)
    report.write_report(tmp_path, runs, 'python tools/compare.py a b')
    text = (tmp_path / 'report.md').read_text()
    assert text.startswith('# 2 comparisons\n')
    first, second = text.split('## gn against nc\n')[1].split('## det_gn against det_nc\n')
    assert 'Baseline: gn.' in first and '| nc | 1 | 45.00 ± - |' in first
    assert 'mask mAP' not in first
    assert 'Baseline: det_gn.' in second and '| det_nc | 1 | 0.500 ± - |' in second
    assert 'det_nc is 0.100 higher than the baseline (better)' in second
    for name, part in (('gn', first), ('det_gn', second)):
        assert f'](curves-{name}.png)' in part
        assert (tmp_path / f'curves-{name}.png').read_bytes().startswith(b'\x89PNG')
    assert len(list(csv.DictReader((tmp_path / 'results.csv').open()))) == 4


def test_the_last_pictures_of_a_run_are_shown(tmp_path):
    done = run(GN, 0, 40.0)
    done.folder = tmp_path / 'out/runs/gn/seed0'
    for start, steps in (('20250101_000000', (1, 99)), ('20250102_000000', (2, 10, 9))):
        folder = done.folder / start / 'vis_data' / 'vis_image'
        folder.mkdir(parents=True)
        for step in steps:
            for name in ('a', 'b_1', 'c'):
                (folder / f'{name}_{step}.png').write_text(start)
    report.write_report(tmp_path / 'out', [done])
    text = (tmp_path / 'out' / 'report.md').read_text()
    assert text.count('![](') == 2
    assert 'gn, seed 0, a_10:\n\n![](pictures/gn-a_10.png)' in text
    assert '![](pictures/gn-b_1_10.png)' in text
    assert (tmp_path / 'out/pictures/gn-a_10.png').read_text() == start


def test_no_run_is_an_error(tmp_path):
    with pytest.raises(ValueError, match='at least one run, got none'):
        report.write_report(tmp_path / 'out', [])
    assert not (tmp_path / 'out').exists()


def test_plain_table_is_aligned():
    text = report.plain((['config', 'x'], [['a', '1.00'], ['longer', '-']]))
    assert text.splitlines() == ['config     x', '------  ----', 'a       1.00', 'longer     -']


def test_a_table_too_wide_for_the_terminal_is_transposed():
    table = (['config', 'accuracy', 'loss'], [['a', '1.00', '2'], ['b', '3.00', '4']])
    assert report.plain(table, width=22) == report.plain(table)
    assert report.plain(table, width=19).splitlines() == [
        'config       a     b',
        '--------  ----  ----',
        'accuracy  1.00  3.00',
        'loss         2     4',
    ]


EVIL = r'$\nothing$ <img src=x onerror=alert(1)> [a](javascript:b) `c` x|y'


def test_names_and_titles_are_text_in_the_report(tmp_path):
    config = f'configs/{EVIL.replace("/", "")}.py'
    runs = [run(config, 0, 40.0, device=EVIL), missing(GN, 0, f'{EVIL}\n\n# new')]
    report.write_report(tmp_path, runs, 'python ```\n<b>', EVIL)
    page = (tmp_path / 'report.md').read_text()
    assert '````\npython ```\n<b>\n````' in page
    rest = page.replace('python ```\n<b>', '')
    assert not re.search(r'<(?!\d)|(?<!\\)\]\(javascript|\n# new|(?<![\\`])`(?!`)', rest)
    assert r'&lt;img src=x onerror=alert(1)&gt; \[a\](javascript:b) \`c\` x\|y' in rest
    assert '/configs/%24%5Cnothing%24%20%3Cimg%20src%3Dx' in rest


@pytest.mark.parametrize('start', ['=', '+', '-', '@', '\t', '\r'])
def test_no_text_of_the_table_is_a_formula(start):
    text = f'{start}HYPERLINK("x")'
    evil = run(text, 0, -40.0, loss=-1.5, device=text)
    evil.validations[-1][1][text] = 1.0
    rows = list(csv.DictReader(io.StringIO(report.results_csv([evil]), newline='')))
    for name in ('config', 'device'):
        assert rows[0][name] == f"'{text}"
    assert rows[0][f"'{text}"] == '1.0'
    assert rows[0]['final training loss'] == '-1.5'  # a number stays one


def test_markdown_escapes_bars():
    assert report.markdown(report.escaped((['a'], [['x|y']]))).splitlines() == [
        '| a |',
        '| :-- |',
        r'| x\|y |',
    ]


def test_the_report_needs_neither_torch_nor_openmmlab():
    """Imported below an empty package, because ``nc_plugins`` itself imports both."""
    folder = Path(report.__file__).parents[1]
    code = (
        'import sys, types; package = types.ModuleType("nc_plugins"); '
        f'package.__path__ = [{str(folder)!r}]; sys.modules["nc_plugins"] = package; '
        'import nc_plugins.report; '
        "print([m for m in ('torch', 'mmengine', 'nc_plugins.layers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, '[]\n'), done.stderr
