"""mmengine's Runner with samples that do not depend on the history of the process."""

from __future__ import annotations

import copy

from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch.utils.data import DataLoader, IterableDataset

from .seeding import EpochSampler, SeededItems


@RUNNERS.register_module(force=True)
class ReliableRunner(Runner):
    """mmengine's Runner whose samples depend on seed, epoch and index alone.

    mmengine seeds the workers of a data loader alike in every epoch, and a resumed training replays
    the augmentations of its first epoch. Here every sample has a seed of its own, so augmentations
    are the same for any number of workers and after a resume. Iterable datasets and samplers that
    are not built from a config are left as they are.
    """

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        if isinstance(dataloader, DataLoader) or not isinstance(dataloader.get('sampler'), dict):
            return Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        config = copy.copy(dataloader)
        config['sampler'] = dict(type=EpochSampler, sampler=dataloader['sampler'])
        loader = Runner.build_dataloader(config, seed, diff_rank_seed)
        if seed is not None and not isinstance(loader.dataset, IterableDataset):
            loader.dataset.__getitems__ = SeededItems(loader.dataset, seed)
        return loader
