"""Validations do not change a training: the same bits with any number of them."""

import copy

import pytest
import torch
from torch import nn

pytest.importorskip('mmengine')
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import Dataset

from nc_plugins.engine.census import NCCensusHook
from nc_plugins.engine.reliable_runner import ReliableRunner
from nc_plugins.layers import NCAffine, NCConv2d


class Noisy(Dataset):
    """Images with an augmentation that draws random numbers."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.full((3, 6, 6), float(index)) + torch.randn(3, 6, 6)


class Model(BaseModel):
    def __init__(self, backend):
        super().__init__()
        self.layers = nn.Sequential(
            NCConv2d(3, 8, 3, padding=1, bias=False, backend=backend), NCAffine(8), nn.ReLU(),
            nn.Dropout(0.3), NCConv2d(8, 4, 1, bias=False, backend=backend), NCAffine(4),
        )  # fmt: skip

    def forward(self, inputs, data_samples=None, mode='tensor'):
        out = self.layers(torch.stack(list(inputs)))
        return {'loss': out.square().mean()} if mode == 'loss' else list(out)


class Nothing(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += [0]

    def compute_metrics(self, results):
        return {'count': len(results)}


class EvaluateMore(Hook):
    """Evaluates between iterations too, in ways that callers outside of the Runner have."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        model = runner.model
        model.eval()
        with torch.no_grad():
            model.layers(torch.ones(1, 3, 6, 6).type_as(model.layers[0].weight))
        with torch.inference_mode():
            copy.deepcopy(model).layers(torch.ones(1, 3, 5, 7).type_as(model.layers[0].weight))
        model.train()


def trained(folder, backend, dtype, interval, *hooks, runner=ReliableRunner):
    torch.manual_seed(0)
    model = Model(backend).to(dtype)
    loader = dict(batch_size=2, num_workers=0, dataset=Noisy())
    loader['collate_fn'] = lambda images: {'inputs': [x.to(dtype) for x in images]}
    runner = runner(
        model, str(folder),
        train_dataloader=dict(sampler=dict(type='DefaultSampler', shuffle=True), **loader),
        val_dataloader=dict(sampler=dict(type='DefaultSampler', shuffle=False), **loader),
        val_evaluator=Evaluator(Nothing()), val_cfg={}, log_level='ERROR',
        train_cfg=dict(by_epoch=False, max_iters=8, val_interval=interval),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        default_hooks=dict(checkpoint=None, logger=None), custom_hooks=list(hooks),
        experiment_name=f'{folder.name}-{interval}', randomness=dict(seed=1),
    )  # fmt: skip
    runner.train()
    return model.state_dict()


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    'backend', ['auto', *(pytest.param(b, marks=pytest.mark.slow) for b in ('aten', 'reference'))]
)
def test_the_same_bits_with_any_number_of_validations(tmp_path, backend, dtype):
    results = [
        trained(tmp_path / str(i), backend, dtype, interval, NCCensusHook(), *hooks)
        for i, (interval, hooks) in enumerate([(8, []), (1, []), (3, [EvaluateMore()])])
    ]
    for other in results[1:]:
        assert all(torch.equal(results[0][name], other[name]) for name in other)


def test_with_mmengines_runner_a_validation_changes_the_training(tmp_path):
    """Otherwise the test above could not fail."""
    results = [trained(tmp_path / str(i), 'aten', torch.float32, i, runner=Runner) for i in (8, 1)]
    assert not torch.equal(results[0]['layers.0.weight'], results[1]['layers.0.weight'])
