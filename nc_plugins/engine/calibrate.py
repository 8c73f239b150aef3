"""Calibrates a converted model before its training."""

from __future__ import annotations

import copy

from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS
from mmengine.runner import load_checkpoint
from torch import nn
from torch.utils.data import DataLoader

from ..convert import convert
from .census import unwrapped
from .seeding import SampleIndex

BATCH_SIZE = 16  # the statistics of few images are inexact


@HOOKS.register_module(force=True)
class CalibrateHook(Hook):
    """Set gain and bias of a model of type NCModel so that they fit its weights.

    Acts before the first iteration, and not in a training that resumes. The inner model of NCModel
    is built once more, gets its weights as the run does (``init_cfg``, then ``load_from``), and is
    converted with ``calibrate``, see :func:`nc_plugins.convert`. The run then goes on with its
    weights. Works with one process.

    Args:
        images: number of training images, spread evenly over the training set. They go through
            the training pipeline, and are held in memory.
    """

    def __init__(self, images: int) -> None:
        self.images = images

    def before_train(self, runner) -> None:
        if runner.iter > 0:
            return
        options = copy.deepcopy(runner.cfg.model)
        del options['type']
        preprocessor = options.pop('data_preprocessor', runner.cfg.get('data_preprocessor'))
        model = self._original(options.pop('model'), preprocessor, runner)
        _, report = convert(model, calibrate=self._batches(runner), **options)
        runner.logger.info(f'calibrated on {self.images} images: {report.summary()}')
        unwrapped(runner.model).load_state_dict(model.state_dict())

    def _original(self, config: dict, preprocessor: dict | None, runner) -> nn.Module:
        """The model before its conversion, with the weights that the run starts from."""
        if preprocessor:
            config.setdefault('data_preprocessor', preprocessor)
        model = MODELS.build(config)
        model.init_weights()
        if runner.cfg.get('load_from'):
            load_checkpoint(model, runner.cfg.load_from, map_location='cpu')
        return model.to(next(runner.model.parameters()).device)

    def _batches(self, runner) -> DataLoader:
        loader = runner.train_dataloader
        total = len(loader.dataset)
        count = min(self.images, total)
        indices = [SampleIndex(number * total // count, epoch=0) for number in range(count)]
        return DataLoader(loader.dataset, BATCH_SIZE, sampler=indices, collate_fn=loader.collate_fn)
