"""The census hook: what it logs, what it leaves in the message hub, what it refuses."""

import logging
from types import SimpleNamespace

import pytest
from torch import nn

pytest.importorskip('mmengine')
from mmengine.config import Config
from mmengine.logging import MessageHub

from nc_plugins.engine.census import DeployHook, NCCensusHook
from nc_plugins.layers import HalfSwapError, NCAffine, NCConv2d, layer_census


@pytest.fixture
def take(caplog):
    """Runs the hook on a model and returns (census in the message hub, what was logged)."""

    def run(*layers):
        logger = logging.getLogger('census-test')
        hub = MessageHub.get_instance(f'census-test-{id(layers)}')
        model = nn.Sequential(*layers)
        runner = SimpleNamespace(model=model, logger=logger, message_hub=hub, cfg=Config({}))
        caplog.clear()
        with caplog.at_level('INFO', logger='census-test'):
            hook = NCCensusHook()
            hook.before_run(runner)
            hook.before_train(runner)
        return hub.get_info('nc_census'), [(r.levelname, r.getMessage()) for r in caplog.records]

    return run


def test_counts_are_logged_and_left_for_the_record(take):
    census, logged = take(NCConv2d(3, 4, 3), NCAffine(4), nn.Conv2d(4, 4, 1))
    assert logged == [
        ('INFO', 'layer census: 1 NC, 1 conv, 1 NCAffine'),
        ('INFO', '1 NC convolutions joined with their NCAffine'),
    ]
    assert census['NC'] == 1 and census['BN'] == 0


def test_norm_slots_without_a_convolution_are_refused(take):
    with pytest.raises(HalfSwapError, match=r"^1 .* comes after 0 .*conv_cfg=dict\(type='NC'"):
        take(nn.Conv2d(3, 4, 3), NCAffine(4))
    with pytest.raises(
        HalfSwapError, match=r"1 and 1 other layers .* no NC conv.*conv_cfg=dict\(type='NC'"
    ):
        take(nn.Conv2d(3, 4, 3), NCAffine(4), NCAffine(4))


def test_norm_slots_that_allow_it_stand_alone(take):
    census, _ = take(nn.Conv2d(3, 4, 3), NCAffine(4, allow_plain=True))
    assert census['NCAffine'] == 1


def test_other_norms_beside_nc_are_mentioned(take):
    _, logged = take(NCConv2d(3, 4, 3), nn.GroupNorm(2, 4))
    assert 'NC convolutions and GN norms' in logged[1][1]
    _, logged = take(NCConv2d(3, 4, 3, allow_bn=True), nn.BatchNorm2d(4))
    assert logged[1][0] == 'WARNING' and 'depend on the batch' in logged[1][1]
    assert len(take(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))[1]) == 1


def test_models_without_convolutions(take):
    assert take(nn.Linear(3, 4))[1] == [('INFO', 'layer census: no convolution and no norm')]


def test_joins_before_training_validation_and_tests(take):
    conv, norm = NCConv2d(3, 4, 3), NCAffine(4)
    take(conv, norm)
    assert conv._joined is norm


def test_a_test_runs_the_deployed_model():
    model = nn.Sequential(NCConv2d(3, 4, 3), NCAffine(4))
    runner = SimpleNamespace(model=model)
    hook = DeployHook()
    hook.before_test_epoch(runner)
    assert layer_census(runner.model)['NCAffine'] == 0 and layer_census(model)['NCAffine'] == 1
    hook.after_test_epoch(runner)
    assert runner.model is model
