"""What stays and why, and the pairs that the walk finds."""

import pytest
import torch
from torch import nn

import nc_plugins
from nc_plugins.layers import HalfSwapError, NCAffine, NCConv2d, layer_census

from .networks import Residual, X, convnet, step


def plan(model, **options):
    """Path -> (kind, reason)."""
    _, report = nc_plugins.convert(model, **options)
    return {row.path: (row.kind, row.reason) for row in report.rows}


def test_what_stays_in_a_network_with_all_sorts():
    model = Residual()
    assert plan(model) == {
        'conv1': ('NC', ''),
        'bn1': ('NC', ''),
        'conv2': (None, 'depthwise: a patch is one channel'),
        'bn2': ('GN', 'conv2 before it stays'),
        'downsample.0': ('NC', ''),
        'downsample.1': ('NC', ''),
        'norm': ('GN', 'no convolution directly before it'),
        'predictor': (None, 'no norm behind it (a predictor, gate or projection)'),
    }


def test_depthwise_convolutions_are_converted_on_request():
    model = Residual()
    rows = plan(model, depthwise='convert')
    assert rows['conv2'] == rows['bn2'] == ('NC', '')
    assert plan(model)['conv2'] == ('plain', 'depthwise: a patch is one channel')  # and back
    assert type(model.conv2) is nn.Conv2d
    model(X)


class Wrapped(nn.Module):
    """A convolution of a class of its own."""

    class Doubled(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    def __init__(self):
        super().__init__()
        self.conv, self.norm = self.Doubled(3, 8, 3), nn.BatchNorm2d(8)

    def forward(self, x):
        return self.norm(self.conv(x))


def parametrized():
    model = convnet()
    torch.nn.utils.parametrizations.spectral_norm(model[0])
    return model


LEFT = {
    'one value in a patch': (
        lambda: nn.Sequential(nn.Conv2d(1, 8, 1), nn.BatchNorm2d(8)),
        '0',
        'a patch has one value, whose variance is 0',
    ),
    'a class with a forward of its own': (
        Wrapped,
        'conv',
        'NC has no form of tests.Doubled',
    ),
    'a parametrization': (
        parametrized,
        '0',
        'its weight is parametrized (torch.nn.utils.parametrize)',
    ),
    'no form in NC': (
        lambda: nn.Sequential(nn.ConvTranspose3d(3, 8, 1), nn.BatchNorm3d(8)),
        '0',
        'NC has no form of torch.ConvTranspose3d',
    ),
    'a lazy convolution': (
        lambda: nn.Sequential(nn.LazyConv2d(8, 1), nn.BatchNorm2d(8)),
        '0',
        'LazyConv2d has no shape yet: run the model once before convert()',
    ),
    'a predictor': (
        lambda: nn.Sequential(*convnet(), nn.ReLU(), nn.Conv2d(8, 2, 1)),
        '6',
        'no norm behind it (a predictor, gate or projection)',
    ),
    'LayerNorm': (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.LayerNorm([8, 8])),
        '1',
        'LayerNorm of the channels of each position or token',
    ),
    'BatchNorm1d after a linear layer': (
        lambda: nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8)),
        '1',
        'no convolution before it (features of a linear layer)',
    ),
}


@pytest.mark.parametrize('name', LEFT)
def test_left_overs_have_a_reason(name):
    build, path, reason = LEFT[name]
    model = build()
    before = repr(model.get_submodule(path))
    assert plan(model)[path] == (None, reason)
    assert repr(model.get_submodule(path)) == before


def test_batch_norm_behind_a_convolution_that_stays_becomes_group_norm():
    model = Wrapped()
    assert plan(model)['norm'] == ('GN', 'conv before it stays')
    step(model)


def test_other_norms_behind_a_convolution_that_stays_stay():
    """They do not depend on the batch."""
    model = Wrapped()
    model.norm = nn.InstanceNorm2d(8)
    assert plan(model)['norm'] == (None, 'conv before it stays')


class PreActivation(nn.Module):
    """A block that begins with a norm, as in ResNet-v2 and DenseNet."""

    def __init__(self):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)
        self.bn2, self.conv2 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)
        self.act = nn.ReLU()

    def forward(self, x):
        y = self.conv1(self.act(self.bn1(x)))
        return x + self.conv2(self.act(self.bn2(y)))


def test_a_pre_activation_network():
    """The norms become affines, because NC standardises the patches that come out of them."""
    head = [nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    model = nn.Sequential(nn.Conv2d(3, 8, 1), PreActivation(), *head)
    assert plan(model) == {
        '0': (None, 'no norm behind it (a predictor, gate or projection)'),
        '1.bn1': ('NC', ''),
        '1.conv1': ('NC', ''),
        '1.bn2': ('NC', ''),
        '1.conv2': ('NC', ''),
        '2': ('GN', 'no convolution directly before it'),
    }
    step(model)


def nested():
    return nn.Sequential(
        nn.Sequential(nn.ReLU(), nn.Sequential(nn.Conv2d(3, 8, 1))),
        nn.Identity(),
        nn.Sequential(nn.BatchNorm2d(8), nn.ReLU()),
    )


class Lists(nn.Module):
    """One list of convolutions and one of norms, as in Res2Net."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(8)])

    def forward(self, x):
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x))
        return x


class Levels(nn.Module):
    """One convolution with a norm for each level, as in RTMDet."""

    def __init__(self):
        super().__init__()
        conv = nn.Conv2d(3, 8, 3)
        self.levels = nn.ModuleList(nn.Sequential(conv, nn.BatchNorm2d(8)) for _ in range(3))

    def forward(self, x):
        return sum(level(x) for level in self.levels)


class Parent(nn.Module):
    """Runs its children one after the other, without being an nn.Sequential."""

    def __init__(self, *children):
        super().__init__()
        self.conv1, self.bn1 = children

    def forward(self, x):
        return self.bn1(self.conv1(x))


def stem():
    """The deep stem of timm's ResNet-D and ResNeSt."""
    return Parent(nn.Sequential(*convnet(), nn.ReLU(), nn.Conv2d(8, 8, 1)), nn.BatchNorm2d(8))


def norm_with_activation():
    return Parent(nn.Conv2d(3, 8, 1), nn.Sequential(nn.BatchNorm2d(8), nn.ReLU()))


@pytest.mark.parametrize(
    ('build', 'convs', 'norms'),
    [(nested, 1, 1), (Lists, 2, 2), (Levels, 1, 3), (stem, 3, 3), (norm_with_activation, 1, 1)],
)
def test_pairs_across_containers(build, convs, norms):
    model, _ = nc_plugins.convert(build())
    census = layer_census(model)
    assert (census['NC'], census['NCAffine']) == (convs, norms)
    step(model)


class Branches(nn.Module):
    """A projection, and a branch that begins with a norm, as in MaxViT."""

    def __init__(self):
        super().__init__()
        self.projection = nn.Sequential(nn.AvgPool2d(1), nn.Conv2d(3, 3, 1))
        self.branch = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))

    def forward(self, x):
        return self.projection(x) + self.branch(x)


def test_branches_are_no_pairs():
    model = Branches()
    assert plan(model)['projection.1'][0] is None
    step(model)


class Shortcut(nn.Module):
    """A projection, and a norm of the sum."""

    def __init__(self):
        super().__init__()
        self.projection = nn.Sequential(nn.AvgPool2d(1), nn.Conv2d(3, 3, 1))
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(x + self.projection(x))


def test_the_first_forward_names_a_norm_that_does_not_belong_to_a_sequential():
    model, _ = nc_plugins.convert(Shortcut())
    with pytest.raises(HalfSwapError, match=r"affine of projection\.1, .* keep=\['norm'\]"):
        model(X)
    model = Shortcut()
    assert plan(model, keep=['norm'])['projection.1'] == (None, 'the norm behind it is in keep')
    step(model)


def test_a_norm_shared_by_two_convolutions_of_which_one_stays():
    norm = nn.BatchNorm2d(8)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), norm, nn.ReLU(), nn.Conv2d(8, 8, 1, groups=8), norm)
    rows = plan(model)
    assert rows['0'] == (None, 'shares the norm behind it with 3, which stays')
    assert rows['1'] == ('GN', '0 before it stays')
    assert layer_census(model)['NC'] == 0


@pytest.mark.parametrize(
    ('keep', 'left'), [(['0'], 1), (['1'], 1), ('[01]', 1), (['0', '4'], 0), ('*', 0), ([], 2)]
)
def test_keep_leaves_whole_pairs(keep, left):
    model, report = nc_plugins.convert(convnet(), keep=keep)
    census = layer_census(model)
    assert census['NC'] == census['NCAffine'] == left
    assert census['conv'] == census['BN'] == 2 - left
    assert all('keep' in row.reason for row in report.left)


def test_keep_of_a_module_keeps_everything_inside():
    model = nn.ModuleDict({'stem': convnet(), 'rest': convnet()})
    nc_plugins.convert(model, keep=['stem'])
    assert layer_census(model['stem'])['NC'] == 0 and layer_census(model['rest'])['NC'] == 2


def test_depthwise_layers_of_nc_that_the_user_built_stay():
    model = nn.Sequential(NCConv2d(3, 3, 3, groups=3), NCAffine(3))
    assert plan(model) == {path: (None, 'is NC already') for path in '01'}


def test_a_network_that_has_layers_of_nc_already():
    model = nn.Sequential(
        NCConv2d(3, 8, 3, bias=False), NCAffine(8), NCConv2d(8, 8, 3, affine=True)
    )
    assert plan(model) == {path: (None, 'is NC already') for path in '012'}
    rows = plan(model, to='GN')
    assert rows['0'] == ('plain', '') and rows['1'] == ('GN', '')
    assert rows['2'] == (None, 'has a gain and bias of its own')
    assert plan(model)['0'] == ('NC', '')
    model(X)
