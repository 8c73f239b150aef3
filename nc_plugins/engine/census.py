"""Joins pairs and reports the layers of a model at the start of a run."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import nn

from ..layers import HalfSwapError, NCAffine, deploy, join_affines, layer_census
from ..layers.half_swap import check_half_swap
from .first_iteration import show_backend, unwrapped, warn_of_ignored_slots


@HOOKS.register_module(force=True)
class NCCensusHook(Hook):
    """Joins each NC convolution with its NCAffine, and logs the census of layers.

    The number of joined pairs, the census and a warning for each slot of the config that did not
    reach its layers are logged before training; the census is also in the message hub under
    ``nc_census``. Joining makes a pair as fast as a layer with its own affine
    and changes neither names nor parameters.

    Raises:
        HalfSwapError: before training, if conv_cfg and norm_cfg do not go together.
    """

    def before_run(self, runner) -> None:
        show_backend()
        self.joined = join_affines(runner.model)

    def before_train(self, runner) -> None:
        model = unwrapped(runner.model)
        census = layer_census(model)
        runner.message_hub.update_info('nc_census', census)
        warn_of_ignored_slots(model, runner.cfg)
        for level, sentence in census_messages(model):
            runner.logger.log(level, sentence)
        if census['NCAffine']:
            runner.logger.info(f'{self.joined} NC convolutions joined with their NCAffine')


def census_messages(model: nn.Module) -> Iterator[tuple[int, str]]:
    """What to know about the layers of ``model``, with the level of each sentence for logging.

    Raises:
        HalfSwapError: if conv_cfg and norm_cfg do not go together.
    """
    census = layer_census(model)
    counts = ', '.join(f'{count} {kind}' for kind, count in census.items() if count)
    yield logging.INFO, f'layer census: {counts or "no convolution and no norm"}'
    check_half_swap(model)
    convolutions = census['NC'] + census['NCWS']
    unpaired = [
        name
        for name, module in model.named_modules()
        if isinstance(module, NCAffine) and not module.allow_plain
    ]
    if unpaired and not convolutions:
        raise HalfSwapError(
            f"{unpaired[0]} and {len(unpaired) - 1} other layers have norm_cfg type 'NC', but "
            'the model has no NC convolution, so nothing is normalised: set conv_cfg=dict(type='
            "'NC') beside norm_cfg=dict(type='NC')"
        )
    if convolutions and census['BN']:
        # Not an error: BatchNorm may follow a plain convolution.
        yield (
            logging.WARNING,
            f'{census["BN"]} BatchNorm layers beside NC convolutions: these parts depend on '
            "the batch; norm_cfg=dict(type='NC') replaces them where it is used, and "
            "tools/train.py --to NC or type='NCModel' everywhere",
        )
    others = [kind for kind in ('GN', 'LN', 'IN') if census[kind]]
    if convolutions and others:
        yield (
            logging.INFO,
            f'NC convolutions and {", ".join(others)} norms in one model: where one follows '
            'the other, activations are normalised twice, as the config says',
        )


class DeployHook(Hook):
    """Tests with the deployed copy of the model, see :func:`nc_plugins.deploy`.

    It acts after all other hooks, because mmengine's EMAHook exchanges weights before a test.
    """

    priority = 'LOWEST'

    def before_test_epoch(self, runner) -> None:
        self._trained = runner.model
        runner.model = deploy(unwrapped(runner.model))

    def after_test_epoch(self, runner, metrics=None) -> None:
        runner.model = self._trained
