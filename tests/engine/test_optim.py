"""One optimiser for each part of a model."""

import pytest

pytest.importorskip('mmengine')
from mmengine.model import BaseModel
from torch import nn

from nc_plugins.engine.optim import PartsOptimWrapperConstructor

ADAM = dict(type='Adam', lr=2e-4, betas=(0.5, 0.999))
OPTIM = dict(generator=dict(optimizer=ADAM), discriminator=dict(optimizer=ADAM))


def build():
    model = BaseModelOfParts()
    for name in ('generator_AB', 'generator_BA', 'discriminator_A'):
        setattr(model, name, nn.Linear(2, 3))
    return model


class BaseModelOfParts(BaseModel):
    def forward(self, inputs, data_samples=None, mode='tensor'):
        raise NotImplementedError


def test_the_optimisers_hold_each_parameter_once():
    model = build()
    wrappers = PartsOptimWrapperConstructor(OPTIM)(model)
    held = [p for w in wrappers.values() for g in w.optimizer.param_groups for p in g['params']]
    assert {id(p) for p in held} == {id(p) for p in model.parameters()}
    assert len(held) == len(list(model.parameters()))
    generators = wrappers['generator'].optimizer.param_groups[0]['params']
    assert len(generators) == 2 * len(list(model.generator_AB.parameters()))
    assert wrappers['generator'].optimizer.defaults['betas'] == (0.5, 0.999)


def test_keys_without_an_optimizer_go_to_every_part():
    cfg = dict(OPTIM, type='OptimWrapper', clip_grad=dict(max_norm=1.0))
    wrappers = PartsOptimWrapperConstructor(cfg)(build())
    assert [w.clip_grad_kwargs for w in wrappers.values()] == [dict(max_norm=1.0)] * 2


def test_wrong_parts():
    with pytest.raises(ValueError, match='no part with an optimizer'):
        PartsOptimWrapperConstructor(dict(type='OptimWrapper'))
    wrong = PartsOptimWrapperConstructor(dict(OPTIM, critic=dict(optimizer=ADAM)))
    with pytest.raises(ValueError, match="part 'critic', but no child"):
        wrong(build())
    half = PartsOptimWrapperConstructor(dict(generator=OPTIM['generator']))
    with pytest.raises(ValueError, match=r"0 parts .* train the model's discriminator_A"):
        half(build())
    twice = PartsOptimWrapperConstructor(dict(OPTIM, generator_AB=dict(optimizer=ADAM)))
    with pytest.raises(ValueError, match=r"2 parts .* train the model's generator_AB"):
        twice(build())
