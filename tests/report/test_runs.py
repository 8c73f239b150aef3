import json
import math

import pytest

from nc_plugins.report.fingerprint import fingerprint
from nc_plugins.report.measures import measure, metric_keys, quality_measures
from nc_plugins.report.runs import Run, read_run


def write_lines(path, *events):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(json.dumps(event) + '\n' for event in events))


def history(epochs, top1=lambda e: 10.0 * e, loss=lambda e: 1.0 / e):
    start = {'event': 'start', 'by_epoch': True, 'max_epochs': 5, 'max_iters': 50}
    events = [start]
    for e in range(1, epochs + 1):
        events.append({'event': 'train', 'epoch': e, 'iter': 10 * e, 'losses': {'loss': loss(e)}})
        metrics = {'accuracy/top1': top1(e), 'val/loss': 2.0 / e}
        events.append({'event': 'val', 'epoch': e, 'iter': 10 * e, 'metrics': metrics})
    return events


def finish(folder, name='sha256:1'):
    (folder / 'record.json').write_text(json.dumps({'finished': True, 'fingerprint': name}))


def test_a_finished_run(tmp_path):
    write_lines(tmp_path / 'history.jsonl', *history(5, top1=lambda e: [9, 8, 30, 7, 20][e - 1]))
    finish(tmp_path)
    run = read_run('configs/r18_gn.py', 3, tmp_path, 'sha256:1')
    assert (run.name, run.seed, run.status, run.why) == ('r18_gn', 3, 'finished', '')
    assert run.train == [(1, 1), (2, 1 / 2), (3, 1 / 3), (4, 1 / 4), (5, 1 / 5)]
    assert run.series('val/loss')[0] == (1, 2.0)
    assert run.final_loss == 0.2
    assert (run.last('accuracy/top1'), run.best('accuracy/top1', False)) == (20, 30)
    assert run.best('val/loss', True) == 0.4
    assert run.last('mIoU') is None
    assert run.best('mIoU', False) is None


def test_missing_runs_say_why(tmp_path):
    assert read_run('a.py', 0, tmp_path / 'none').why == 'never started'
    run = read_run('a.py', 0, tmp_path)
    assert (run.status, run.why, run.done) == ('missing', 'unfinished', False)
    write_lines(tmp_path / 'history.jsonl', *history(2))
    assert read_run('a.py', 0, tmp_path).why == 'unfinished, last seen at epoch 2/5'
    finish(tmp_path, 'sha256:old')
    run = read_run('a.py', 0, tmp_path, 'sha256:new')
    assert not run.done
    assert 'another config or options' in run.why
    assert run.validations == []
    assert read_run('a.py', 0, tmp_path).done


@pytest.mark.parametrize(
    ('top1', 'loss'),
    [(lambda e: 10.0, lambda e: math.nan), (lambda e: math.inf, lambda e: 1.0)],
)
def test_a_run_that_ends_in_nan_has_diverged(tmp_path, top1, loss):
    write_lines(tmp_path / 'history.jsonl', *history(5, top1, loss))
    finish(tmp_path)
    run = read_run('a.py', 0, tmp_path)
    assert (run.status, run.done) == ('diverged', True)


def test_best_skips_nan(tmp_path):
    values = [5.0, math.nan, 3.0, math.nan, math.nan]
    write_lines(tmp_path / 'history.jsonl', *history(5, top1=lambda e: values[e - 1]))
    assert read_run('a.py', 0, tmp_path).best('accuracy/top1', False) == 5.0


def test_files_cut_short_are_tolerated(tmp_path):
    write_lines(tmp_path / 'history.jsonl', *history(2))
    with (tmp_path / 'history.jsonl').open('a') as file:
        file.write('{"event": "train", "epoch": 3, "it')
    (tmp_path / 'record.json').write_text('{"finished": tr')
    run = read_run('a.py', 0, tmp_path)
    assert not run.done
    assert [x for x, _ in run.train] == [1, 2]


def test_models_without_one_loss_give_the_sum_of_their_losses(tmp_path):
    event = {'event': 'train', 'epoch': 1, 'iter': 5, 'losses': {'loss_G': 2.0, 'loss_D': 0.5}}
    write_lines(tmp_path / 'history.jsonl', event)
    assert read_run('a.py', 0, tmp_path).train == [(1, 2.5)]


def test_mmengines_scalars_stand_in_for_a_history(tmp_path):
    def lines(shift):
        yield {'lr': 0.1, 'loss': 4.0 + shift, 'time': 0.1, 'epoch': 1, 'iter': 10, 'step': 10}
        yield {'lr': 0.1, 'loss': 2.0 + shift, 'time': 0.1, 'epoch': 1, 'iter': 20, 'step': 20}
        yield {'accuracy/top1': 50.0, 'data_time': 0.1, 'time': 0.2, 'step': 1}
        yield {'lr': 0.1, 'loss': 1.0 + shift, 'time': 0.1, 'epoch': 2, 'iter': 30, 'step': 30}

    write_lines(tmp_path / '20250101_000000' / 'vis_data' / 'scalars.json', *lines(100))
    newest = tmp_path / '20250102_000000' / 'vis_data' / 'scalars.json'
    write_lines(newest, *lines(0))
    with newest.open('a') as file:
        file.write('{"accuracy/top1": 5')
    run = read_run('a.py', 0, tmp_path)
    assert run.train == [(1, 3.0), (2, 1.0)]
    assert run.validations == [(1, {'accuracy/top1': 50.0})]


def test_scalars_of_an_iteration_based_training(tmp_path):
    write_lines(
        tmp_path / '20250101_000000' / 'vis_data' / 'scalars.json',
        {'lr': 0.1, 'loss': 4.0, 'iter': 50, 'step': 50},
        {'mIoU': 12.5, 'aAcc': 40.0, 'time': 0.2, 'step': 100},
    )
    run = read_run('a.py', 0, tmp_path)
    assert (run.by_epoch, run.train) == (False, [(50, 4.0)])
    assert run.validations == [(100, {'mIoU': 12.5, 'aAcc': 40.0})]


@pytest.mark.parametrize(
    ('key', 'lower'),
    [
        ('val/loss', True),
        ('cycle/l1', True),
        ('FID', True),
        ('top1_error', True),
        ('accuracy/top1', False),
        ('coco/segm_mAP', False),
        ('glossiness', False),
    ],
)
def test_the_better_direction(key, lower):
    assert measure(key).lower_is_better is lower


def test_known_measures_come_first_and_unknown_ones_still_come(tmp_path):
    def run(*keys):
        return Run('a.py', 0, tmp_path, validations=[(1, dict.fromkeys(keys, 1.0))])

    coco = run('val/loss', 'coco/segm_mAP', 'coco/bbox_mAP_50', 'coco/bbox_mAP')
    assert metric_keys([coco])[:2] == ['coco/bbox_mAP', 'coco/segm_mAP']
    assert [m.key for m in quality_measures([coco], limit=2)] == [
        'coco/bbox_mAP',
        'coco/segm_mAP',
    ]
    assert [m.label for m in quality_measures([coco])][2:] == ['box AP50 (0-1)']
    assert [m.key for m in quality_measures([run('aAcc', 'mIoU')])] == ['mIoU']
    translation = quality_measures([run('cycle/l1', 'digits/read', 'digits/read_real')])
    assert [m.key for m in translation] == ['digits/read', 'cycle/l1']
    assert [m.lower_is_better for m in translation] == [False, True]
    assert [m.key for m in quality_measures([run('psnr', 'ssim')])] == ['psnr', 'ssim']
    assert quality_measures([]) == []


def test_fingerprint_sees_content_and_options_but_not_key_order():
    config = {'model': {'type': 'R', 'depth': 18}, 'lr': [0.1, 0.2]}
    name = fingerprint(config, ['a=1'])
    assert name == fingerprint({'lr': (0.1, 0.2), 'model': {'depth': 18, 'type': 'R'}}, ['a=1'])
    assert name.startswith('sha256:')
    different = [
        fingerprint(config, []),
        fingerprint(config, ['a=2']),
        fingerprint({**config, 'lr': [0.1, 0.3]}, ['a=1']),
        fingerprint({**config, 'lr': None}, ['a=1']),
    ]
    assert len({name, *different}) == 5
    assert fingerprint(config, ['a=1', 'a=2']) != fingerprint(config, ['a=2', 'a=1'])


def test_fingerprint_of_classes_and_objects_is_stable():
    assert fingerprint({1: Run, 'x': object()}) == fingerprint({1: Run, 'x': object()})
    assert fingerprint({'type': Run}) != fingerprint({'type': dict})
