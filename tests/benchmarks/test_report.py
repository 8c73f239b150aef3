"""docs/benchmarks from rows of results.csv."""

import pytest
import report
import results
import targets
from cases import GROUPS
from targets import CPU_TARGETS, GPU_TARGETS, Target

BLOCK = 'resnet50/2x64x56x56-k3-o64'
STEP = 'models/resnet50-224-b2'


def row(case, system, metric, q50, mode='train', **other):
    return {
        'case': case, 'system': system, 'mode': mode, 'metric': metric, 'unit': '', 'q50': str(q50),
        'q20': str(0.9 * q50), 'q80': str(1.1 * q50), 'dtype': 'float32', 'layout': 'nchw',
        'device': 'CPU x', 'threads': '2', 'torch': '2.11.0', 'triton': '', 'commit': 'c0ffee',
        'utc': '2025-01-01T00:00:00+00:00', **other,
    }  # fmt: skip


def layers(q50, metric='time / conv+gn', group='resnet50', **other):
    """A ratio for every shape of a group: ``q50``, and 1.25 for the last shape."""
    cases = [case.name for case in GROUPS[group]]
    return [row(c, 'nc', metric, 1.25 if c == cases[-1] else q50, **other) for c in cases]


def table(rows, wanted=CPU_TARGETS):
    header, lines = targets.target_table(wanted, rows, 'not measured: no rows')
    return {line[0]: dict(zip(header, line, strict=True)) for line in lines}


def test_without_rows_every_target_is_open():
    for line in (*table([]).values(), *table([], GPU_TARGETS).values()):
        assert line['result'] == 'open' and line['measured'] == 'not measured: no rows'


def test_the_bounds_are_those_that_were_agreed():
    bounds = [(t.limit, t.goal, t.higher_is_better) for t in CPU_TARGETS]
    assert bounds == [
        (1.08, 1.0, False), (1.3, 1.1, False), (1.15, 1.05, False), (1.0, 0.95, False),
        (0.75, 0.65, False), (3.5, None, True), (14, None, True), (1.02, 1.0, False),
        (1.02, 1.0, False), (1.05, 1.0, False), (1.1, 1.0, False), (1.01, None, False),
        (1.01, None, False), (1.5, None, False), (1.5, None, False),
    ]  # fmt: skip
    assert [t.limit for t in GPU_TARGETS] == [1.0, 1.15, 1.0, 1.0, 1.0, 1.0]
    for target in (*CPU_TARGETS, *GPU_TARGETS):
        assert target.cases() and set(target.cases()) <= set(report.CASES)
    assert len({t.text for t in CPU_TARGETS}) == len(CPU_TARGETS)


def test_mean_and_worst_shape():
    lines = table(layers(0.9))
    mean = lines['training, NC / (conv + GN), geometric mean']
    worst = lines['training, NC / (conv + GN), worst shape']
    expected = (0.9**22 * 1.25) ** (1 / 23)
    assert mean['measured'] == f'{expected:.3f} (worst 1.25 at 3x3 512 to 512 at 7)'
    assert mean['result'] == 'met'
    assert worst['measured'] == '1.25 at 3x3 512 to 512 at 7'
    assert worst['result'] == 'limit met, goal missed'


def test_missed_targets_are_shown():
    lines = table(layers(1.2))
    assert lines['training, NC / (conv + GN), geometric mean']['result'] == '**missed**'


def test_a_target_needs_all_its_shapes():
    line = table(layers(0.9)[:-1])['training, NC / (conv + GN), geometric mean']
    assert line['measured'] == 'not measured: 22 of 23 shapes' and line['result'] == 'open'


def test_higher_is_better_for_the_definition():
    for value, result in ((15, 'met'), (13, '**missed**')):
        lines = table([row(BLOCK, 'definition', 'time / nc', value)])
        assert lines['training, im2col definition / NC, 3x3 at 56x56']['result'] == result


def test_the_joined_pair_has_a_column():
    rows = [row(STEP, 'nc', 'time / conv+gn', 1.0), row(STEP, 'nc-pair', 'time / conv+gn', 1.01)]
    line = table(rows)['ResNet-50 training step at 224 pixels, batch 2, NC / GN']
    assert (line['measured'], line['joined pair']) == ('1.000', '1.010')


def test_the_joined_pair_has_targets_of_its_own():
    shapes = [case.name for case in GROUPS['resnet50']]
    for mode, name in (('train', 'training'), ('fwd', 'inference')):
        text = f'{name}, joined pair / layer with its own affine, geometric mean'
        for value, result in ((1.005, 'met'), (1.02, '**missed**')):
            rows = [row(case, 'nc-pair', 'time / nc', value, mode=mode) for case in shapes]
            assert table(rows)[text]['result'] == result


def test_rows_of_another_mode_do_not_count():
    lines = table(layers(0.9, mode='fwd'))
    assert lines['inference, NC / (conv + GN), geometric mean']['result'] != 'open'
    assert lines['training, NC / (conv + GN), geometric mean']['result'] == 'open'


def test_the_latest_row_wins():
    rows = [row(STEP, 'nc', 'time / conv+gn', 2.0), row(STEP, 'nc', 'time / conv+gn', 0.5)]
    other = row(STEP, 'nc', 'time / conv+gn', 3.0, threads='4')
    kept = results.latest([*rows, other])
    assert [r['q50'] for r in kept] == ['0.5', '3.0']


def test_page(tmp_path):
    rows = [row(STEP, 'nc', 'time', 321.0), row(STEP, 'conv+gn', 'time', 300.0)]
    rows += [row(STEP, 'nc', 'time / conv+gn', 1.07), *layers(0.9)]
    rows += [r | {'metric': 'time', 'q50': '5'} for r in layers(0.9)]
    report.write(tmp_path, rows)
    page = (tmp_path / 'README.md').read_text()
    assert '**missed**' in page and '321' in page and '1.070 [0.96, 1.18]' in page
    assert page.count('not measured: no GPU has been timed') == len(GPU_TARGETS)
    assert 'Commit c0ffee, torch 2.11.0' in page and '2025-01-01' in page
    plots = {file.name: file.read_bytes() for file in tmp_path.glob('*.png')}
    assert list(plots) == ['resnet50-train-cpu-x-2-float32-nchw.png']
    assert all(f']({name})' in page for name in plots)
    assert all(data.startswith(b'\x89PNG') and len(data) < 200_000 for data in plots.values())
    assert report.up_to_date(tmp_path, rows)


def test_losses_are_listed_from_the_largest(tmp_path):
    """Ratios above 1 appear by case; a column of the table counts them."""
    first, second, *others = [case.name for case in GROUPS['resnet50']]
    ratios = {first: 1.1, second: 1.3, **dict.fromkeys(others, 0.9)}
    rows = [row(case, 'nc', 'time / conv+gn', ratio) for case, ratio in ratios.items()]
    report.write(tmp_path, rows)
    page = (tmp_path / 'README.md').read_text()
    [line] = [
        line for line in page.splitlines() if line.startswith('| resnet50, training | float32')
    ]
    names = [report.CASES[case].label for case in (second, first)]
    mean = (1.1 * 1.3 * 0.9**21) ** (1 / 23)
    assert line.split(' | ')[2:4] == [f'{mean:.3f}', '2 of 23']
    assert line.endswith(f'| {names[0]} (1.30); {names[1]} (1.10) |')


def test_many_losses_are_counted(tmp_path):
    report.write(tmp_path, layers(1.2))
    assert '| 23 of 23 | 3x3 512 to 512 at 7 (1.25); ' in (tmp_path / 'README.md').read_text()
    assert '; and 18 more |' in (tmp_path / 'README.md').read_text()


def test_overhead_is_shown_in_microseconds():
    [tiny] = GROUPS['overhead']
    [(title, (header, [line]))] = report.timings([row(tiny.name, 'nc', 'time', 0.0425)])
    assert title == 'overhead, training, µs: CPU x, 2 threads, float32, nchw'
    assert dict(zip(header, line, strict=True))['nc'] == '42.5'


def test_gpu_rows_fill_their_own_table(tmp_path):
    gpu = {'device': 'NVIDIA H100', 'dtype': 'bfloat16', 'layout': 'channels_last'}
    report.write(tmp_path, layers(0.9, group='resnet50-b32', **gpu))
    page = (tmp_path / 'README.md').read_text()
    assert '### On a GPU: NVIDIA H100, bfloat16, channels_last' in page
    assert 'no GPU has been timed |' not in page and 'no rows in results.csv' in page


def test_an_outdated_page_is_detected(tmp_path):
    rows = layers(0.9)
    report.write(tmp_path, rows)
    assert not report.up_to_date(tmp_path, layers(0.8))
    (tmp_path / 'old.png').write_bytes(b'')
    assert not report.up_to_date(tmp_path, rows)
    report.write(tmp_path, rows)
    assert report.up_to_date(tmp_path, rows)


def test_the_network_total_weighs_shapes_by_count():
    rows = []
    for conv in GROUPS['resnet50']:
        slow = 3.0 if conv.count == 6 else 1.0
        rows += [row(conv.name, 'nc', 'time', slow), row(conv.name, 'conv+gn', 'time', 1.0)]
        rows.append(row(conv.name, 'nc', 'time / conv+gn', slow))
    [(title, (header, lines))] = report.timings(rows)
    assert title.startswith('resnet50, training')
    cells = {line[0]: dict(zip(header, line, strict=True)) for line in lines}
    assert cells['network']['nc / conv+gn'] == f'{(53 + 2 * 6) / 53:.3f}'
    assert cells['geometric mean']['nc / conv+gn'] == f'{3 ** (1 / 23):.3f}'


@pytest.mark.parametrize('value', [0.99, 1.01])
def test_upper_and_lower_bounds(value):
    below, above = Target('', '', '', 1.0), Target('', '', '', 1.0, higher_is_better=True)
    assert below.met(value, 1.0) == (value < 1) != above.met(value, 1.0)


def test_docs_are_up_to_date(capsys):
    assert report.main(['--check']) == 0, capsys.readouterr().err


def test_check_fails_on_an_outdated_page(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(report, 'FOLDER', tmp_path)
    assert report.main(['--check']) == 1
    assert 'python benchmarks/report.py' in capsys.readouterr().err
    assert report.main([]) == 0 and report.main(['--check']) == 0
