"""What convert() makes of small networks: there, back, and everything that must not change."""

import copy
import pickle

import pytest
import torch
from torch import nn

import nc_plugins
from nc_plugins.convert.kinds import TARGETS
from nc_plugins.layers import (
    HalfSwapError,
    NCAffine,
    NCConv1d,
    NCConv2d,
    NCConv3d,
    NCConvTranspose2d,
    join_affines,
    layer_census,
)

from .networks import Residual, X, classes, convnet, step


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_equal_states(ours, theirs):
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_pair_becomes_a_normalized_convolution_and_its_affine():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
    nn.init.uniform_(model[1].weight), nn.init.normal_(model[1].bias)
    expected = nn.Sequential(NCConv2d(3, 8, 3, padding=1, bias=False), NCAffine(8))
    expected.load_state_dict(model.state_dict(), strict=False)
    converted, report = nc_plugins.convert(model)
    assert converted is model
    assert classes(model) == ['NCConv2d', 'NCAffine']
    assert [row.kind for row in report.rows] == ['NC', 'NC']
    torch.testing.assert_close(model(X), expected(X), rtol=0, atol=0)
    assert list(model.state_dict()) == ['0.weight', '1.weight', '1.bias']


@pytest.mark.parametrize('to', TARGETS)
def test_every_target_trains_and_leads_back(to):
    model = Residual()
    nc_plugins.convert(model, 'NC')
    before, outputs = state(model), model(X)
    nc_plugins.convert(model, to)
    step(model)
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), before.values(), strict=True):
            parameter.copy_(value)
    nc_plugins.convert(model, 'NC')
    assert_equal_states(state(model), before)
    torch.testing.assert_close(model(X), outputs)


def test_the_way_back_to_batch_norm_restores_classes_and_arguments():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, eps=1e-3, momentum=0.01))
    original = copy.deepcopy(model)
    for to in ('NC', 'GN', 'NCWS', 'BN'):
        nc_plugins.convert(model, to)
    assert repr(model) == repr(original)
    assert vars(model[0]).keys() == vars(original[0]).keys()
    assert vars(model[1]).keys() == vars(original[1]).keys()
    assert_equal_states(state(model), state(original))  # the running statistics are new
    torch.testing.assert_close(model.train()(X), original.train()(X))


def test_group_norm_keeps_its_number_of_groups_there_and_back():
    model = nn.Sequential(nn.Conv2d(3, 12, 3), nn.GroupNorm(3, 12))
    nc_plugins.convert(model, 'NC')
    nc_plugins.convert(model, 'GN')
    assert model[1].num_groups == 3


@pytest.mark.parametrize(
    ('channels', 'groups'), [(1, 1), (2, 1), (7, 1), (24, 12), (64, 32), (96, 32), (116, 29)]
)
def test_number_of_groups_of_a_new_group_norm(channels, groups):
    model = nn.Sequential(nn.Conv2d(3, channels, 3), nn.BatchNorm2d(channels))
    nc_plugins.convert(model, 'GN')
    assert model[1].num_groups == groups


def test_everything_of_the_user_stays():
    model = convnet().to(torch.bfloat16).eval()
    model[0].weight.requires_grad_(False)
    model[0].mark, called = 'mine', []
    model[0].register_forward_hook(lambda *args: called.append('conv'))
    parameters, modules = list(model.parameters()), list(model.modules())
    nc_plugins.convert(model)
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert all(a is b for a, b in zip(model.modules(), modules, strict=True))
    assert not model[0].weight.requires_grad and not any(m.training for m in model.modules())
    assert model[0].mark == 'mine'
    assert model(X.bfloat16()).dtype == torch.bfloat16
    assert called == ['conv']


def test_an_optimiser_that_was_built_before_trains_the_converted_model():
    model = convnet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    nc_plugins.convert(model)
    before = state(model)
    step(model)
    optimizer.step()
    assert all(not torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ('conv', 'norm', 'wanted', 'shape'),
    [
        (nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), NCConv1d, (2, 3, 9)),
        (nn.Conv3d(3, 8, 3), nn.BatchNorm3d(8), NCConv3d, (2, 3, 5, 5, 5)),
        (nn.ConvTranspose2d(3, 8, 3, 2), nn.InstanceNorm2d(8), NCConvTranspose2d, (2, 3, 5, 5)),
        (nn.Conv2d(3, 8, 3), nn.SyncBatchNorm(8), NCConv2d, (2, 3, 5, 5)),
    ],
)
def test_other_classes_of_convolution_and_norm(conv, norm, wanted, shape):
    model, original = nn.Sequential(conv, norm), repr(nn.Sequential(conv, norm))
    keys = [key for key in model.state_dict() if 'running' not in key and 'tracked' not in key]
    nc_plugins.convert(model)
    assert type(model[0]) is wanted and isinstance(model[1], NCAffine)
    assert list(model.state_dict()) == keys
    assert model(torch.randn(shape)).isfinite().all()
    nc_plugins.convert(model, 'IN' if 'Instance' in original else 'BN')
    assert repr(model) == original


def test_a_shared_module_and_one_in_a_list_are_converted_under_all_names():
    block = convnet()
    model = nn.ModuleDict({'a': block, 'b': nn.ModuleList([block])})
    model.in_a_list = [block[0]]
    _, report = nc_plugins.convert(model)
    assert report.rows[0].path == 'a.0' and report.rows[0].others == ('b.0.0',)
    assert 'a.0 (also b.0.0)' in str(report)
    assert type(model.in_a_list[0]) is NCConv2d
    assert model['b'][0][0] is model['a'][0] is model.in_a_list[0]
    assert model['b'][0](X).isfinite().all()


def test_two_models_that_share_a_module():
    stem = convnet()
    first, second = nn.Sequential(stem, nn.Conv2d(8, 2, 1)), nn.Sequential(stem)
    nc_plugins.convert(first)
    assert layer_census(second)['NC'] == 2
    assert nc_plugins.convert(second)[1].converted == []
    first(X), second(X)


def test_copies_and_pickles_of_a_converted_model():
    model, _ = nc_plugins.convert(convnet())
    expected = model(X)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(other(X), expected)
        nc_plugins.convert(other, 'BN')
        assert classes(other) == classes(convnet())


def test_a_converted_model_can_be_joined_deployed_and_converted_again():
    model, _ = nc_plugins.convert(convnet())
    expected = model(X)
    assert join_affines(model) == 2
    torch.testing.assert_close(model(X), expected)
    torch.testing.assert_close(nc_plugins.deploy(model)(X), model.eval()(X))
    nc_plugins.convert(model, 'GN')
    assert layer_census(model)['GN'] == 2
    model(X)


def test_joining_before_the_first_forward_works_and_keeps_the_check():
    model, _ = nc_plugins.convert(convnet())
    assert join_affines(model) == 2
    nc_plugins.deploy(model)(X)
    model(X)


class Clone(nn.Module):
    """Registers a pair, but runs something between the two."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

    def forward(self, x):
        return self.norm(self.conv(x).relu())


@pytest.mark.parametrize('train', [True, False])
def test_the_first_forward_names_a_pair_that_is_none(train):
    model, _ = nc_plugins.convert(nn.Sequential(Clone()).train(train))
    for _ in range(2):
        with pytest.raises(HalfSwapError, match=r"0\.norm .* 0\.conv, .* keep=\['0\.norm'\]"):
            model(X)
    model = nn.Sequential(Clone())
    nc_plugins.convert(model, keep=['0.norm'])
    assert layer_census(model)['BN'] == 1
    model(X)


def test_only_the_first_forward_is_checked():
    model, _ = nc_plugins.convert(convnet())
    model(X)
    model[1](model[0](X).relu())  # a user who looks inside


def test_dry_run_prints_the_plan_and_changes_nothing(capsys):
    model = convnet()
    before = repr(model)
    _, report = nc_plugins.convert(model, dry_run=True)
    assert repr(model) == before
    assert capsys.readouterr().out == f'{report}\n'
    assert str(report).splitlines()[:2] == [
        'module  is                  becomes  because',
        '0       Conv2d 3x3, 3 -> 8  NC',
    ]
    assert '2 convolutions become NC, 2 norms become NC' in report.summary()
