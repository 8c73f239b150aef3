"""The CSV files give back what was written, and a repeated training replaces its lines."""

from nc_plugins.records import Record, Start, TrainingLoss, Validation, write_history, write_record
from nc_plugins.report import read_run
from studies.results import Row, epochs_of, read_rows, row_of, write_rows
from studies.worklist import TEST, Setting, Trial


def row(name, top1, **changes):
    values = dict(
        name=name, config='nc', batch=2, rate=0.01, seed=0, split='test', status='finished',
        top1=top1, val_loss=1.5, train_loss=1.4, images_per_second=80.0, seconds=200.0,
        memory=800.0, commit='abc', utc_end='2026-11-25T18:00:00+00:00', device='CPU, "x"',
        threads=1, load=2.0, torch='2.11.0',
    )  # fmt: skip
    return Row(**{**values, **changes})


def epoch(name, number):
    return {'name': name, 'epoch': number, 'train_loss': 1.5, 'top1': '', 'val_loss': ''}


def test_round_trip(tmp_path):
    rows = [row('a', 40.0), row('b', 41.5, status='diverged')]
    write_rows(rows, [epoch('a', 1), epoch('b', 1)], tmp_path)
    assert read_rows(tmp_path) == {'a': rows[0], 'b': rows[1]}


def test_a_training_replaces_its_own_lines_only(tmp_path):
    write_rows([row('a', 40.0), row('b', 41.0)], [epoch('a', 1), epoch('b', 1)], tmp_path)
    write_rows([row('a', 42.0)], [epoch('a', 1), epoch('a', 2)], tmp_path)
    assert {name: r.top1 for name, r in read_rows(tmp_path).items()} == {'a': 42.0, 'b': 41.0}
    assert (tmp_path / 'epochs.csv').read_text().count('a,') == 2


def test_no_file_is_no_result(tmp_path):
    assert read_rows(tmp_path) == {}


def test_a_run_folder_becomes_a_row(tmp_path):
    metrics = {'accuracy/top1': 32.300001, 'val/loss': 1.89244}
    record = Record(
        metrics=metrics, images_per_second=27.38, total_seconds=660.4, peak_memory_mb=933.3,
        commit='abc', utc_end='2026-11-25T18:00:00+00:00', device='CPU', threads=1, load=2.5,
        torch='2.11.0',
    )  # fmt: skip
    write_record(tmp_path, record)
    losses = [TrainingLoss(epoch, 2500 * epoch, {'loss': 2.5 - epoch / 4}) for epoch in (1, 2)]
    write_history(tmp_path, [Start(True, 2, 5000), *losses, Validation(2, 5000, metrics)])
    trial = Trial(Setting('gn'), 0.01, 0, TEST)
    run = read_run('gn.py', 0, tmp_path)
    row = row_of(trial, run)
    assert (row.name, row.config, row.rate, row.split) == (trial.name, 'gn', 0.01, TEST)
    assert (row.top1, row.val_loss, row.train_loss, row.seconds) == (32.3, 1.8924, 2.0, 660)
    assert [(line['epoch'], line['top1']) for line in epochs_of(trial, run)] == [(1, ''), (2, 32.3)]
