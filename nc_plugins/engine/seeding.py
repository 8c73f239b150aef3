"""Random numbers that depend on the seed and on the position in the training alone.

A resumed training then continues with the random numbers of an uninterrupted one, and neither
validations nor the number of worker processes change a training.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from mmengine.dist import get_dist_info
from mmengine.hooks import Hook
from mmengine.registry import DATA_SAMPLERS, HOOKS
from torch.utils.data import Dataset, Sampler

# Last number of a seed, so that equal positions of different kinds get different seeds.
_ITERATION, _EPOCH, _SAMPLE = 1, 2, 3


def seed_all(*numbers: int) -> None:
    """Seed Python, NumPy and torch (CPU and CUDA) from a hash of integers. Takes microseconds."""
    digest = hashlib.blake2b(repr([*map(int, numbers)]).encode(), digest_size=8).digest()
    seed = int.from_bytes(digest, 'little') >> 1
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    # torch.manual_seed takes more than a millisecond while CUDA is not initialised, as in workers.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


# force: a second import (reload, two names for one file) must register again, not raise.
@HOOKS.register_module(force=True)
class StepSeedHook(Hook):
    """Seed all generators before each training epoch and each training iteration.

    The seeds depend on ``runner.seed`` and the iteration; with ``randomness.diff_rank_seed`` also
    on the rank.
    """

    priority = 'VERY_HIGH'  # before hooks that draw random numbers

    def before_train_epoch(self, runner) -> None:
        seed_all(runner.seed, _rank(runner), runner.iter, _EPOCH)

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        seed_all(runner.seed, _rank(runner), runner.iter, _ITERATION)


def _rank(runner) -> int:
    differs = (runner.cfg.get('randomness') or {}).get('diff_rank_seed')
    return runner.rank if differs else 0


class SampleIndex(int):
    """The index of a sample in a dataset, with the epoch in which it is read."""

    def __new__(cls, index: int, epoch: int) -> SampleIndex:
        self = super().__new__(cls, index)
        self.epoch = epoch
        return self

    def __reduce__(self):  # indices are pickled on their way to worker processes
        return SampleIndex, (int(self), self.epoch)


@DATA_SAMPLERS.register_module(force=True)
class EpochSampler(Sampler):
    """Yield the indices of another sampler as :class:`SampleIndex`.

    Args:
        dataset: the dataset.
        sampler: config of a sampler of mmengine, finite or infinite.
        seed: seed of the sampler.
    """

    def __init__(self, dataset: Dataset, sampler: dict, seed: int | None = None) -> None:
        self.dataset = dataset
        self.sampler = DATA_SAMPLERS.build(sampler, default_args=dict(dataset=dataset, seed=seed))
        self.epoch = 0
        self._left_out = 0
        # mmengine calls skip() of infinite samplers when a training resumes.
        if hasattr(self.sampler, 'skip'):
            self.skip = self.leave_out

    def __iter__(self) -> Iterator[SampleIndex]:
        rank, processes = get_dist_info()
        first, self._left_out = self._left_out, 0
        for position, index in enumerate(self.sampler):
            if position >= first:
                # An infinite sampler goes through the dataset many times in one pass.
                passes = (position * processes + rank) // len(self.dataset)
                yield SampleIndex(index, self.epoch + passes)

    def __len__(self) -> int:
        return len(self.sampler)

    def leave_out(self, samples: int) -> None:
        """Start the next pass after the first ``samples`` indices of this process."""
        self._left_out = samples

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)

    def __getattr__(self, name: str):
        if name == 'sampler':  # not there yet while unpickling
            raise AttributeError(name)
        return getattr(self.sampler, name)


class SeededItems:
    """Read samples of ``dataset``, each with the seed of its epoch and index.

    As the attribute ``__getitems__`` of a dataset it is called by torch's DataLoader in place of
    ``__getitem__``. The dataset is not wrapped, because hooks change its attributes.
    """

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __call__(self, indices: Sequence[int]) -> list:
        return [self._read(index) for index in indices]

    def _read(self, index: int):
        if isinstance(index, SampleIndex):
            seed_all(self.seed, index.epoch, index, _SAMPLE)
            index = int(index)
        return self.dataset[index]
