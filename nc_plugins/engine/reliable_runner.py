"""mmengine's Runner with random numbers that do not depend on the history of the process."""

from __future__ import annotations

import copy

from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch.utils.data import DataLoader, IterableDataset

from .seeding import EpochSampler, SeededItems, StepSeedHook


@RUNNERS.register_module(force=True)
class ReliableRunner(Runner):
    """mmengine's Runner whose random numbers depend on the seed and the position alone.

    mmengine saves no random state, so a resumed training draws other numbers than an uninterrupted
    one; its workers repeat their augmentations in every epoch; and a validation changes the
    training that follows. Here each iteration and each sample has a seed of its own. Iterable
    datasets and samplers that are not built from a config are left as they are.
    """

    def register_hooks(self, default_hooks=None, custom_hooks=None) -> None:
        super().register_hooks(default_hooks, custom_hooks)
        self.register_hook(StepSeedHook())

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
