"""The runner: correctness gate, order of the systems, measurements, and rows of the CSV."""

import csv
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import measure
import pytest
import results
import run
import systems
import torch
from cases import GROUPS, Conv, Model
from gate import WrongResult, gate
from systems import Options, System
from torch import nn

from nc_plugins.layers import NCConv2d

CONV = Conv('tiny', 2, 8, 8, 3, 9, 7, count=1, padding=1)
STEM = Conv('tiny', 2, 3, 8, 3, 9, 9, count=1, padding=1, stride=2, stem=True)
UP = Conv('tiny', 1, 4, 4, 3, 5, 4, count=1, stride=2, padding=1, transposed=True)
DILATED = Conv('tiny', 1, 4, 8, 3, 9, 9, count=1, padding=2, dilation=2)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(GROUPS, 'tiny', (CONV, STEM))
    monkeypatch.setattr(run, 'timings', lambda rows: [])  # it has labels for listed cases only


def wrong_by(change):
    """An NC system with an error."""

    class Wrong(NCConv2d):
        def forward(self, x):
            return change(self, super().forward(x), x)

    return System(lambda conv: (systems._like(conv, Wrong, affine=True), nn.Identity()))


class _WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, out):
        return out.clone()

    @staticmethod
    def backward(ctx, grad):
        return 1.01 * grad


def border(layer, out, x):
    mask = torch.ones_like(out)
    mask[..., 0, 0] = 0.9
    return out * mask


WRONG = {
    'one percent off': lambda layer, out, x: 1.01 * out,
    'one percent off in inference': lambda layer, out, x: out * (1.0 if layer.training else 1.01),
    'wrong gradient': lambda layer, out, x: _WrongGradient.apply(out),
    'wrong in a corner': border,
    'not a number': lambda layer, out, x: out * torch.nan,
}


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('layout', ['nchw', 'channels_last'])
@pytest.mark.parametrize('case', [CONV, STEM, UP, DILATED], ids=lambda case: case.name)
def test_every_nc_system_passes_the_gate(case, layout, dtype):
    seen = []
    gate([case], list(systems.SYSTEMS), Options(layout=layout, dtype=dtype), seen.append)
    assert len(seen) == 1


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('wrong', WRONG.values(), ids=WRONG)
def test_a_wrong_operator_writes_nothing(wrong, dtype, tiny, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(systems.SYSTEMS, 'nc', wrong_by(wrong))
    path = tmp_path / 'results.csv'
    command = ['tiny', '--systems', 'conv', 'nc', '--rounds', '2', '--record', str(path)]
    assert run.main([*command, '--dtype', dtype]) == 1
    assert not path.exists()
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith('error: nc is wrong on 2x8x9x7-k3-o8') and 'nothing was measured' in said


def test_the_gate_checks_the_layers_of_a_model(monkeypatch):
    monkeypatch.setitem(systems.SYSTEMS, 'nc', wrong_by(WRONG['one percent off']))
    with pytest.raises(WrongResult, match='2x3x32x32-k3-o64'):
        gate([GROUPS['models'][0]], ['nc'], Options(), lambda text: None)


def test_rows_are_added_and_never_rewritten(tiny, tmp_path, capsys):
    path = tmp_path / 'results.csv'
    command = ['tiny', '--rounds', '3', '--modes', 'fwd', 'train', 'memory']
    command += ['--threads', '1', '--systems', 'nc', 'conv+gn', '--record', str(path)]
    threads = torch.get_num_threads()
    try:
        assert run.main(command) == 0
        first = path.read_bytes()
        assert run.main(command) == 0
    finally:
        torch.set_num_threads(threads)
    assert path.read_bytes().startswith(first)
    with path.open() as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert reader.fieldnames == [
        'case', 'system', 'mode', 'metric', 'unit', 'q50', 'q20', 'q80', 'dtype', 'layout',
        'device', 'threads', 'torch', 'triton', 'commit', 'utc',
    ]  # fmt: skip
    half = len(rows) // 2
    assert [r['case'] for r in rows[:half]] == [r['case'] for r in rows[half:]]
    names = ('case', 'system', 'mode', 'metric', 'unit')
    kinds = Counter(tuple(row[name] for name in names) for row in rows[:half])
    expected = set()
    for case in (CONV.name, STEM.name):
        for mode, metric, unit in (
            ('fwd', 'time', 'ms'), ('train', 'time', 'ms'), ('train', 'kept', 'byte'),
        ):  # fmt: skip
            expected |= {(case, s, mode, metric, unit) for s in ('nc', 'conv+gn')}
            expected.add((case, 'nc', mode, f'{metric} / conv+gn', '1'))
    assert set(kinds) == expected and max(kinds.values()) == 1
    for row in rows:
        assert 0 < float(row['q20']) <= float(row['q50']) <= float(row['q80'])
        assert row['threads'] == '1' and row['device'].startswith('CPU ') and row['commit']


def test_without_record_nothing_is_written(tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(results, 'RESULTS', tmp_path / 'results.csv')
    assert run.main(['tiny', '--rounds', '1', '--systems', 'nc', 'conv']) == 0
    assert not results.RESULTS.exists()


def test_a_file_with_another_header_is_not_changed(tmp_path):
    path = tmp_path / 'results.csv'
    row = dict.fromkeys(results.COLUMNS, '1')
    for text in ('a,b\n1,2\n', ','.join(results.COLUMNS) + '\n1,2'):
        path.write_text(text)
        with pytest.raises(ValueError, match='header'):
            results.append(path, [row])
        assert path.read_text() == text


def test_the_commit_says_whether_the_tree_is_clean(monkeypatch, tmp_path):
    def git(*args):
        identity = ('-c', 'user.name=a', '-c', 'user.email=a@b.c')
        run.subprocess.run(['git', '-C', str(tmp_path), *identity, *args], check=True)

    (tmp_path / 'benchmarks').mkdir()
    (tmp_path / 'code.py').write_text('1')
    git('init', '-q')
    git('add', '.')
    git('commit', '-qm', 'x')
    monkeypatch.setattr(run, '__file__', str(tmp_path / 'benchmarks' / 'run.py'))
    clean = run.commit()
    assert len(clean) == 10
    (tmp_path / 'benchmarks' / 'results.csv').write_text('a record is no change of the code')
    assert run.commit() == clean
    (tmp_path / 'new.py').write_text('2')
    assert run.commit() == clean + '+'


def test_quantiles():
    assert results.quantiles([5, 1, 4, 2, 3, 6]) == {'q50': '3.5', 'q20': '2', 'q80': '5'}
    assert results.quantiles([7]) == {'q50': '7', 'q20': '7', 'q80': '7'}


def test_ratios_are_taken_within_a_round():
    """The machine becomes four times slower, and the ratio stays 2."""
    values = {'nc': [2, 4, 16, 8], 'conv': [1, 2, 8, 4], 'definition': [8, 16, 64, 32]}
    rows = {(r['system'], r['metric']): r for r in run.rows('c', 'fwd', 'time', 'ms', values, {})}
    assert rows['nc', 'time / conv']['q50'] == '2'
    assert rows['nc', 'time / conv']['q20'] == rows['nc', 'time / conv']['q80'] == '2'
    assert rows['definition', 'time / nc']['q50'] == '4'
    assert ('conv', 'time / conv') not in rows and ('nc', 'time / nc') not in rows


@pytest.mark.parametrize('count', range(1, 14))
def test_order(count):
    """In ``count`` rounds each system runs once at each position. In 2 * ``count`` rounds it
    follows each other system twice."""
    rounds = [measure.order(i, count) for i in range(2 * count)]
    for half in (rounds[:count], rounds[count:]):
        for positions in (*half, *zip(*half, strict=True)):
            assert sorted(positions) == list(range(count))
    followers = Counter(pair for row in rounds for pair in pairwise(row))
    assert len(followers) == count * (count - 1) and set(followers.values()) <= {2}


def test_systems_alternate(monkeypatch):
    """Warm-up rounds do not count. Inference runs in eval mode, training in training mode."""
    ran = []

    def time_call(work, clock, training):
        assert work.module.training == training
        ran.append((id(work), training))
        number = float(len(ran))
        return {'bwd': number, 'train': number} if training else {'fwd': number}

    monkeypatch.setattr(measure, 'time_call', time_call)
    names = ['nc', 'conv', 'conv+gn']
    taken = measure.times(CONV, names, ['fwd', 'train'], 6, Options())
    assert list(taken) == ['fwd', 'train']
    rounds = 6 + measure.WARMUP
    assert len(ran) == 2 * rounds * len(names)
    for first in range(0, len(ran), len(names)):
        assert len({who for who, _ in ran[first : first + len(names)]}) == len(names)
    for values in taken['fwd'].values():
        assert len(values) == 6 and min(values) > measure.WARMUP * len(names)


def test_a_tiny_case_is_the_median_of_many_calls(monkeypatch):
    """The calls of one system are consecutive; a slow call does not move the median."""
    ran = []

    def time_call(work, clock, training):
        ran.append(id(work))
        return {'fwd': 100.0 if len(ran) % 5 == 0 else 1.0}

    monkeypatch.setattr(measure, 'time_call', time_call)
    case = replace(CONV, calls=5)
    measured = measure.times(case, ['nc', 'conv'], ['fwd'], 4, Options())
    assert measured == {'fwd': {'nc': [1.0] * 4, 'conv': [1.0] * 4}}
    assert len(ran) == 5 * 2 * (4 + measure.WARMUP)
    blocks = [ran[i : i + 5] for i in range(0, len(ran), 5)]
    assert all(len(set(block)) == 1 for block in blocks)


def test_a_deployed_system_is_measured_in_inference_only():
    name = 'nc-aten-deployed'
    measured = measure.times(CONV, ['nc-aten', name], ['fwd', 'train'], 2, Options())
    assert {mode: [*found] for mode, found in measured.items()} == {
        'fwd': ['nc-aten', name],
        'train': ['nc-aten'],
    }
    assert [*measure.memory(CONV, ['nc-aten', name], Options())['kept']] == ['nc-aten']


def test_ratios_of_pair_and_deployed_layer():
    values = {'nc': [2.0], 'nc-pair': [3.0], 'nc-cpu': [4.0], 'nc-cpu-deployed': [1.0]}
    rows = {(r['system'], r['metric']): r for r in run.rows('c', 'fwd', 'time', 'ms', values, {})}
    assert rows['nc-pair', 'time / nc']['q50'] == '1.5'
    assert rows['nc-cpu-deployed', 'time / nc-cpu']['q50'] == '0.25'
    assert len(rows) == len(values) + 2


def test_a_training_call_computes_every_gradient():
    for case in (CONV, STEM):
        x = systems.images(case, Options())
        job = systems.work('nc', case, Options(), x)
        before = [p.clone() for p in job.module.parameters()]
        elapsed = measure.time_call(job, measure.Clock('cpu', True), training=True)
        assert elapsed['train'] > elapsed['bwd'] > 0
        assert all(p.grad.abs().max() > 0 for p in job.module.parameters())
        assert (x.grad is not None) == (case is CONV)
        assert all(map(torch.equal, before, job.module.parameters()))


def test_bytes_kept():
    """Convolution + GroupNorm keep the input, the convolution's output, and mean and rstd."""
    x, y = 2 * 8 * 9 * 7, 2 * 8 * 9 * 7
    assert measure.kept('conv', CONV, Options()) == 4 * x
    assert measure.kept('conv+gn', CONV, Options()) == 4 * (x + y + 2 * 2 * 8)
    assert measure.kept('definition', CONV, Options()) > 4 * 9 * x  # the im2col matrix


def test_a_copy_of_the_weight_counts_and_the_weight_does_not(monkeypatch):
    class Copying(nn.Conv2d):
        def forward(self, x):
            return self._conv_forward(x, self.weight * 2, None)

    def build(conv):
        return systems._like(conv, Copying), nn.Identity()

    monkeypatch.setitem(systems.SYSTEMS, 'copying', System(build))
    extra = measure.kept('copying', CONV, Options()) - measure.kept('conv', CONV, Options())
    assert extra == 4 * 8 * 8 * 9


@pytest.mark.slow
def test_peak_memory_of_a_step_in_a_fresh_process():
    """The peak is between one and three times the gradients of 11.2 million parameters."""
    case = Model('models', 'resnet18-cifar', 32, 2, classes=10)
    with measure.ProcessPoolExecutor(1, measure.multiprocessing.get_context('spawn')) as process:
        found = process.submit(measure.peak, 'conv+gn', case, Options(threads=1)).result()
    assert 4 * 11_173_962 < found < 3 * 4 * 11_173_962
