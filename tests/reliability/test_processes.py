"""Several processes: the same training as one process with the whole batch, and a clean end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('mmpretrain')
import cv2
import numpy as np
import torch
import train

ROOT = Path(__file__).parents[2]
DIST_TRAIN = ROOT / 'tools' / 'dist_train.sh'
ITERATIONS = 20  # two epochs of 20 images at batch 2


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """{train,val}/<0..9>/*.png, 2 and 1 images a class."""
    root = tmp_path_factory.mktemp('digits')
    rng = np.random.default_rng(0)
    for split, count in (('train', 2), ('val', 1)):
        for label in range(10):
            (root / split / str(label)).mkdir(parents=True)
            for i in range(count):
                image = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
                cv2.imwrite(str(root / split / str(label) / f'{i}.png'), image)
    return root


CONFIG = """
_base_ = '{root}/configs/classification/resnet18_{norm}_1xb2_digits.py'
custom_imports = dict(
    imports=['nc_plugins', 'nc_plugins.models.resnet', 'double_precision'],
    allow_failed_imports=False,
)
data_root = '{folder}'
model = dict(
    type='{model}Classifier',
    data_preprocessor=dict(type='{preprocessor}Preprocessor'),
    backbone=dict(stem_channels=8, base_channels=8),
    head=dict(in_channels=64),
)
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=2)
default_hooks = dict(logger=dict(interval=1))
visualizer = dict(vis_backends=[dict(type='LocalVisBackend')])
"""


@pytest.fixture
def write_config(folder, tmp_path):
    def write(norm='nc', double=True):
        path = tmp_path / f'{tmp_path.name}_{norm}_{double}.py'
        model, preprocessor = ('Double', 'Double') if double else ('Image', 'ClsData')
        names = dict(root=ROOT, folder=folder, norm=norm, model=model, preprocessor=preprocessor)
        path.write_text(CONFIG.format(**names))
        return str(path)

    return write


def run(*command, **env):
    env = {
        **os.environ,
        'PYTHON': sys.executable,
        'PYTHONPATH': os.pathsep.join([str(ROOT), str(Path(__file__).parent)]),
        'OMP_NUM_THREADS': '1',
        'CUDA_VISIBLE_DEVICES': '',
        **env,
    }
    command = [*map(str, command)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)


def arguments(work_dir, batch, accumulate=1):
    options = [f'train_dataloader.batch_size={batch}']
    options.append(f'optim_wrapper.accumulative_counts={accumulate}')
    return ['--work-dir', str(work_dir), '--cfg-options', *options]


def one_process(config, work_dir, batch, accumulate=1):
    assert train.main([config, *arguments(work_dir, batch, accumulate)]) == 0
    return outcome(work_dir)


def two_processes(config, work_dir):
    done = run('bash', DIST_TRAIN, config, 2, *arguments(work_dir, batch=1))
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'the processes use the backend gloo, not nccl' in done.stdout + done.stderr
    return outcome(work_dir)


def outcome(work_dir):
    """(weights, training losses of the epochs, record) of a finished training."""
    weights = torch.load(work_dir / 'epoch_2.pth', weights_only=False)['state_dict']
    events = [json.loads(x) for x in (work_dir / 'history.jsonl').read_text().splitlines()]
    losses = [e['losses']['loss'] for e in events if e['event'] == 'train']
    return weights, losses, json.loads((work_dir / 'record.json').read_text())


def largest_difference(a, b):
    assert a.keys() == b.keys()
    return max((a[k] - b[k]).abs().max().item() for k in a if a[k].is_floating_point())


def test_two_processes_train_like_one_with_twice_the_batch(write_config, tmp_path):
    config = write_config()
    weights, losses, record = one_process(config, tmp_path / 'one', batch=2)
    assert (record['world_size'], record['max_iters']) == (1, ITERATIONS)
    both, both_losses, both_record = two_processes(config, tmp_path / 'two')
    assert (both_record['world_size'], both_record['max_iters']) == (2, ITERATIONS)
    assert next(iter(weights.values())).dtype == torch.float64
    print(largest_difference(weights, both), losses, both_losses)
    assert largest_difference(weights, both) < 1e-10
    assert losses == pytest.approx(both_losses, rel=1e-10)


@pytest.mark.parametrize(('norm', 'equal'), [('nc', True), ('bn', False)])
def test_gradient_accumulation_trains_like_the_whole_batch(norm, equal, write_config, tmp_path):
    config = write_config(norm)
    whole = one_process(config, tmp_path / 'whole', batch=2)
    parts = one_process(config, tmp_path / 'parts', batch=1, accumulate=2)
    print(largest_difference(whole[0], parts[0]), whole[1], parts[1])
    assert (largest_difference(whole[0], parts[0]) < 1e-10) == equal
