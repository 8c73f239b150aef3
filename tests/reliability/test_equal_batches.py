"""A batch that is split over processes or iterations trains like the whole batch."""

import json
from pathlib import Path

import pytest
import torch
import train

from nc_plugins.engine.safe_loading import load_checkpoint
from nc_plugins.layers import NCAffine, NCConv2d

TOOLS = Path(__file__).parents[2] / 'tools'
ITERATIONS = 20  # two epochs of 20 images at batch 2


def arguments(work_dir, batch, accumulate=1, epochs=2, resume=()):
    options = [f'train_dataloader.batch_size={batch}', f'train_cfg.max_epochs={epochs}']
    options.append(f'optim_wrapper.accumulative_counts={accumulate}')
    return ['--work-dir', str(work_dir), *resume, '--cfg-options', *options]


def outcome(work_dir):
    """(weights, training losses of the epochs, record) of a finished training."""
    checkpoint = Path((work_dir / 'last_checkpoint').read_text())
    weights = load_checkpoint(checkpoint)['state_dict']
    events = [json.loads(x) for x in (work_dir / 'history.jsonl').read_text().splitlines()]
    losses = [e['losses']['loss'] for e in events if e['event'] == 'train']
    return weights, losses, json.loads((work_dir / 'record.json').read_text())


def in_one_process(config, work_dir, **batch):
    assert train.main([config, *arguments(work_dir, **batch)]) == 0
    return outcome(work_dir)


@pytest.fixture
def in_two_processes(run):
    def call(config, work_dir, **batch):
        script = TOOLS / 'dist_train.sh'
        code, output = run('bash', script, config, 2, *arguments(work_dir, **batch))
        assert code == 0, output[-3000:]
        assert 'the processes use the backend gloo, not nccl' in output
        return outcome(work_dir)

    return call


def largest_difference(a, b):
    assert a.keys() == b.keys()
    return max((a[k] - b[k]).abs().max().item() for k in a if a[k].is_floating_point())


@pytest.mark.slow
def test_two_processes_train_like_one_with_twice_the_batch(config, in_two_processes, tmp_path):
    path = config(double=True)
    weights, losses, record = in_one_process(path, tmp_path / 'one', batch=2)
    both, both_losses, both_record = in_two_processes(path, tmp_path / 'two', batch=1)
    assert (record['world_size'], record['max_iters']) == (1, ITERATIONS)
    assert (both_record['world_size'], both_record['max_iters']) == (2, ITERATIONS)
    assert weights['head.fc.weight'].dtype == torch.float64
    assert largest_difference(weights, both) < 1e-10
    # The mean over the processes. Each of them sees other images, so its own losses differ.
    assert losses == pytest.approx(both_losses, rel=1e-10)


@pytest.mark.parametrize(('norm', 'equal'), [('nc', True), ('bn', False)])
def test_gradient_accumulation_trains_like_the_whole_batch(norm, equal, config, tmp_path):
    path = config(norm, double=True)
    whole, losses, _ = in_one_process(path, tmp_path / 'whole', batch=2)
    parts, part_losses, _ = in_one_process(path, tmp_path / 'parts', batch=1, accumulate=2)
    assert (largest_difference(whole, parts) < 1e-10) == equal
    assert (losses == pytest.approx(part_losses, rel=1e-10)) == equal


@pytest.mark.slow
def test_with_batchnorm_two_processes_differ(config, in_two_processes, tmp_path):
    path = config('bn', double=True)
    weights, losses, _ = in_one_process(path, tmp_path / 'one', batch=2)
    both, both_losses, _ = in_two_processes(path, tmp_path / 'two', batch=1)
    assert largest_difference(weights, both) > 1e-3
    assert losses != pytest.approx(both_losses, rel=1e-3)


@pytest.mark.slow
def test_two_processes_in_float32(config, in_two_processes, tmp_path):
    path = config()
    weights, losses, _ = in_one_process(path, tmp_path / 'one', batch=2)
    both, both_losses, _ = in_two_processes(path, tmp_path / 'two', batch=1)
    assert largest_difference(weights, both) < 1e-6
    assert losses == pytest.approx(both_losses, rel=1e-6)


@pytest.mark.slow
def test_a_resume_in_two_processes_gives_the_same_bits(config, in_two_processes, tmp_path):
    path, parts = config(), tmp_path / 'parts'
    weights, losses, _ = in_two_processes(path, tmp_path / 'whole', batch=1)
    in_two_processes(path, parts, batch=1, epochs=1)
    again, again_losses, _ = in_two_processes(path, parts, batch=1, resume=['--resume'])
    assert largest_difference(weights, again) == 0
    assert losses == again_losses


@pytest.fixture
def group():
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group('gloo', store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_nc_communicates_no_more_than_groupnorm(group):
    def collectives(conv, norm):
        """Names of the collective operations in a training step."""
        layers = [m for _ in range(3) for m in (conv(4, 4, 3), norm(4), torch.nn.ReLU())]
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Sequential(*layers))
        for _ in range(2):  # the second step arranges the buckets of gradients
            model(torch.randn(2, 4, 9, 9)).mean().backward()
        with torch.profiler.profile() as profile:
            model(torch.randn(2, 4, 9, 9)).mean().backward()
        return sorted(event.name for event in profile.events() if 'gloo:' in event.name)

    group_norm = collectives(torch.nn.Conv2d, lambda channels: torch.nn.GroupNorm(2, channels))
    assert group_norm == ['gloo:all_reduce']  # the gradients
    assert collectives(NCConv2d, NCAffine) == group_norm
