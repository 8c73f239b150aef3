import csv
import io
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fake_runs import GN, NC, missing, run

import nc_plugins.report as report
from nc_plugins.report.verdict import caveats, verdicts


def column(table, name):
    header, rows = table
    return [row[header.index(name)] for row in rows]


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
