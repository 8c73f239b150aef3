"""A training of milliseconds for tests of hooks and of the Runner."""

from __future__ import annotations

import time

import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from torch import nn
from torch.utils.data import Dataset

from nc_plugins.engine.reliable_runner import ReliableRunner


class Noise(Dataset):
    """Eight samples that are random in every epoch."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return {'inputs': torch.randn(4) + index, 'data_samples': index}


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        out = self.layers(torch.stack(list(inputs)))
        return {'loss': out.square().mean()} if mode == 'loss' else list(out)


class Score(BaseMetric):
    """A metric with the given values, one for each validation; by default it grows."""

    default_prefix = 'toy'

    def __init__(self, values=()):
        super().__init__()
        self.values = list(values)

    def process(self, data_batch, data_samples):
        self.results += [0]

    def compute_metrics(self, results):
        # The number of the last iteration, or after a resume the number of iterations.
        iteration = MessageHub.get_current_instance().get_info('iter')
        return {'score': self.values.pop(0) if self.values else float((iteration + 3) // 4)}


def runner(folder, hooks=(), scores=(), sampler='DefaultSampler', workers=0, **more):
    """A ReliableRunner of three epochs of four iterations, with a validation after each epoch."""
    torch.manual_seed(0)
    loader = dict(batch_size=2, num_workers=workers, dataset=Noise())
    settings = dict(
        model=Model(),
        train_dataloader=dict(sampler=dict(type=sampler, shuffle=True), **loader),
        val_dataloader=dict(sampler=dict(type='DefaultSampler', shuffle=False), **loader),
        val_evaluator=Evaluator(Score(scores)),
        val_cfg={},
        train_cfg=dict(by_epoch=True, max_epochs=3),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        default_hooks=dict(
            checkpoint=dict(type='DurableCheckpointHook', interval=1, max_keep_ckpts=2)
        ),
        randomness=dict(seed=3),
    )
    return ReliableRunner(
        work_dir=str(folder),
        custom_hooks=list(hooks),
        log_level='ERROR',
        experiment_name=f'{folder.name}-{time.time_ns()}',
        **{**settings, **more},
    )
