"""Samples and iterations have random numbers of their own."""

import copy
import pickle
import random
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import InfiniteSampler, pseudo_collate
from torch.utils.data import Dataset, TensorDataset

from nc_plugins.engine.reliable_runner import ReliableRunner
from nc_plugins.engine.seeding import EpochSampler, SampleIndex, seed_all

toy = runpy.run_path(str(Path(__file__).with_name('toy.py')))['runner']


class Draws(Dataset):
    """Samples that are a number of each generator."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return index, random.random(), np.random.rand(), torch.rand(()).item()


def loader(workers, batch, sampler='DefaultSampler', **more):
    config = dict(
        batch_size=batch, num_workers=workers, dataset=Draws(),
        sampler=dict(type=sampler, shuffle=True), collate_fn=dict(type='default_collate'), **more,
    )  # fmt: skip
    return ReliableRunner.build_dataloader(config, seed=5)


def epoch(data, number):
    """The samples of an epoch by index, and their order."""
    data.sampler.set_epoch(number)
    rows = [row for batch in data for row in zip(*(x.tolist() for x in batch), strict=True)]
    return {row[0]: row[1:] for row in rows}, [row[0] for row in rows]


def test_a_sample_depends_on_seed_epoch_and_index_alone():
    samples, order = epoch(loader(0, 1), 3)
    assert epoch(loader(2, 2), 3) == (samples, order)
    assert epoch(loader(1, 4, persistent_workers=True), 3) == (samples, order)
    data = loader(2, 3, persistent_workers=True)
    seen = [epoch(data, number) for number in (0, 3, 1)]  # whatever came before
    assert seen[1] == (samples, order)
    values = [row for samples, _ in seen for row in samples.values()]
    assert len(set(values)) == len(values) == 18


def test_an_infinite_sampler_counts_its_passes():
    data = loader(0, 2, 'InfiniteSampler')
    batches = iter(data)
    first = [next(batches) for _ in range(6)]
    values = torch.cat([batch[3] for batch in first]).tolist()
    assert len(set(values)) == 12  # two passes of six samples

    skipped = loader(0, 2, 'InfiniteSampler')
    skipped.sampler.skip(8)
    for expected, batch in zip(first[4:], skipped, strict=False):
        assert torch.equal(expected[0], batch[0]) and torch.equal(expected[3], batch[3])


def test_the_sampler_acts_like_the_one_inside():
    data = TensorDataset(torch.arange(4))
    sampler = EpochSampler(data, dict(type='DefaultSampler', shuffle=False), seed=1)
    assert list(sampler) == [0, 1, 2, 3] and len(sampler) == 4
    assert sampler.shuffle is False and sampler.dataset is data
    assert not hasattr(sampler, 'skip')  # mmengine asks
    sampler.leave_out(3)
    assert [list(sampler), list(sampler)] == [[3], [0, 1, 2, 3]]
    assert [i.epoch for i in pickle.loads(pickle.dumps(copy.deepcopy(list(sampler))))] == [0] * 4
    infinite = EpochSampler(data, dict(type=InfiniteSampler, shuffle=False), seed=1)
    assert hasattr(infinite, 'skip')


def test_a_dataset_keeps_its_type_and_the_index_its_value():
    data = loader(0, 1)
    assert type(data.dataset) is Draws
    assert pickle.loads(pickle.dumps(SampleIndex(3, 7))) == 3
    assert isinstance(SampleIndex(3, 7), int)
    assert pseudo_collate([SampleIndex(3, 7)]) == [3]


@pytest.mark.parametrize('numbers', [(1, 2), (1, 3), (2, 2), (1, 2, 0, 1)])
def test_seeds_differ_in_all_generators(numbers):
    def draw(*key):
        seed_all(*key)
        return random.random(), np.random.rand(), torch.rand(()).item()

    one, other = draw(*numbers), draw(1, 2, 3)
    assert draw(*numbers) == one
    assert all(a != b for a, b in zip(one, other, strict=True))


def test_the_iterations_of_a_training_differ(tmp_path):
    """Dropout must not drop the same values in every iteration."""
    masks = []
    training = toy(tmp_path)
    training.model.layers[1].register_forward_hook(
        lambda module, args, out: masks.append((out == 0).tolist()) if module.training else None
    )
    training.train()
    assert len(masks) == 12
    assert len({str(mask) for mask in masks}) > 6
