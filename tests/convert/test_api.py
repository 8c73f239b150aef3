"""What convert() refuses, and what it tells about optimisers and frozen norms."""

import pytest
import torch
from torch import nn

import nc_plugins
from nc_plugins.layers import layer_census

from .networks import convnet, step


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'to': 'nc'}, "to is 'nc', wanted one of 'NC', 'NCWS', 'GN'"),
        ({'depthwise': 'yes'}, "depthwise is 'yes', wanted one of 'keep', 'convert'"),
        ({'keep': ['a.conf']}, r"the model has no module 'a\.conf'; did you mean 'a\.conv'\?"),
    ],
)
def test_wrong_arguments(options, message):
    model = nn.ModuleDict({'a': nn.ModuleDict({'conv': nn.Conv2d(3, 8, 3)})})
    with pytest.raises(ValueError, match=message):
        nc_plugins.convert(model, **options)


class FSDPModule(nn.Sequential):
    """Named as torch's class; a real one needs a process group."""


def compiled_inside():
    model = convnet()
    model[0].compile(backend='eager')
    return model


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: nn.DataParallel(convnet()), 'DataParallel.* model.module before you wrap it'),
        (
            lambda: torch.compile(convnet(), backend='eager'),
            'OptimizedModule: .*before torch',
        ),
        (lambda: nn.Sequential(FSDPModule(convnet())), '^0 is a FSDPModule: .*fully_shard'),
        (compiled_inside, r'^0 is compiled: convert the model before \.compile\(\)'),
        (lambda: nc_plugins.deploy(nc_plugins.convert(convnet())[0]), r'given to .*deploy\(\)'),
        (lambda: {'a': 1}, 'model is a dict, wanted an nn.Module'),
    ],
)
def test_wrapped_models_are_refused(build, message):
    with pytest.raises(TypeError, match=message):
        nc_plugins.convert(build())


def test_distributed_data_parallel_is_refused(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / 'store'), 1)
    torch.distributed.init_process_group('gloo', store=store, rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(convnet())
        with pytest.raises(TypeError, match='DistributedDataParallel: convert'):
            nc_plugins.convert(model)
        assert layer_census(model)['BN'] == 2
    finally:
        torch.distributed.destroy_process_group()


def test_optimizers_of_another_model_are_refused():
    stranger = torch.optim.SGD(convnet().parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r'optimizers\[0\] has no parameter of the model'):
        nc_plugins.convert(convnet(), optimizers=stranger)
    with pytest.raises(TypeError, match=r'optimizers\[0\] is a int'):
        nc_plugins.convert(convnet(), optimizers=[1])


def test_frozen_norms_are_told_and_can_be_unfrozen():
    model = convnet()
    model[1].requires_grad_(False)
    _, report = nc_plugins.convert(model)
    assert 'converted norms: 1. ' in str(report) and 'report.unfreeze()' in str(report)
    assert not model[1].weight.requires_grad
    assert report.unfreeze() == 1
    assert model[1].weight.requires_grad and model[1].bias.requires_grad


def test_frozen_batch_norm_of_torchvision():
    from torchvision.ops import FrozenBatchNorm2d

    model = nn.Sequential(nn.Conv2d(3, 8, 3), FrozenBatchNorm2d(8))
    nn.init.normal_(model[1].weight)
    weight = model[1].weight.clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    _, report = nc_plugins.convert(model, optimizers=optimizer)
    assert set(model.state_dict()) == {'0.weight', '0.bias', '1.weight', '1.bias'}
    assert torch.equal(model[1].weight, weight) and not model[1].weight.requires_grad
    assert report.unfreeze() == 1
    step(model)
    optimizer.step()
    assert not torch.equal(model[1].weight, weight)
    nc_plugins.convert(model, 'BN')
    assert type(model[1]) is nn.BatchNorm2d


def test_a_frozen_batch_norm_without_an_optimiser_is_told():
    from torchvision.ops import FrozenBatchNorm2d

    _, report = nc_plugins.convert(nn.Sequential(nn.Conv2d(3, 8, 3), FrozenBatchNorm2d(8)))
    assert 'convert(optimizers=...)' in report.summary()


def test_nothing_to_convert_is_told():
    _, report = nc_plugins.convert(nn.Sequential(nn.Linear(3, 4)))
    assert report.summary() == 'convert to NC: nothing to convert\nNothing was converted.'
