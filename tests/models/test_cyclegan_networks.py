"""The networks of CycleGAN: parameters, shapes, receptive fields and normalised layers."""

import pytest

pytest.importorskip('mmcv')
import torch
from torch import nn

from nc_plugins import layer_census
from nc_plugins.layers import HalfSwapError
from nc_plugins.models.cyclegan_networks import PatchDiscriminator, ResNetGenerator

IN = dict(norm_cfg=dict(type='IN', affine=False))
NC = dict(conv_cfg=dict(type='NC'), norm_cfg=dict(type='NC'))
GN = dict(norm_cfg=dict(type='GN', num_groups=2))
SLOTS = {'in': IN, 'nc': NC}


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_the_number_of_parameters_is_that_of_the_authors_release():
    assert count(ResNetGenerator(9, **IN)) == 11_378_179
    assert count(ResNetGenerator(6, **IN)) == 7_837_699
    assert count(PatchDiscriminator(**IN)) == 2_764_737


@pytest.mark.parametrize(
    ('kind', 'upsample'),
    [('in', 'deconv'), ('in', 'nearest'), ('nc', 'NCDeconv'), ('nc', 'nearest')],
)
def test_a_generator_keeps_the_size_and_returns_values_from_minus_1_to_1(kind, upsample):
    net = ResNetGenerator(1, 4, upsample_cfg=dict(type=upsample), **SLOTS[kind])
    out = net(torch.randn(2, 3, 20, 28) * 5)
    assert out.shape == (2, 3, 20, 28)
    assert out.abs().max() <= 1


def test_a_plain_transposed_convolution_in_an_nc_generator_is_an_error():
    net = ResNetGenerator(1, 4, upsample_cfg=dict(type='deconv'), **NC)
    with pytest.raises(HalfSwapError):
        net(torch.randn(1, 3, 16, 16))


def test_a_generator_rejects_sizes_that_are_not_multiples_of_4():
    with pytest.raises(ValueError, match='must be multiples of 4, got 18x16'):
        ResNetGenerator(1, 4)(torch.randn(1, 3, 18, 16))


@pytest.mark.parametrize(('layers', 'field'), [(1, 16), (2, 34), (3, 70)])
def test_the_receptive_field_of_a_logit(layers, field):
    net = PatchDiscriminator(layers, 4, norm_cfg=dict(type='GN', num_groups=1))
    for layer in net.layers:
        layer.with_norm = False  # the statistics of a norm depend on the whole image
    x = torch.randn(1, 3, 128, 128, requires_grad=True)
    out = net(x)
    out[0, 0, out.shape[2] // 2, out.shape[3] // 2].backward()
    seen = x.grad[0].abs().sum(0).nonzero()
    assert (seen.max(0).values - seen.min(0).values + 1).tolist() == [field, field]


def test_the_outer_convolutions_stay_plain():
    generator = ResNetGenerator(9, 8, upsample_cfg=dict(type='NCDeconv'), **NC)
    discriminator = PatchDiscriminator(3, 8, **NC)
    assert {k: n for k, n in layer_census(generator).items() if n} == {
        'NC': 23,
        'NCAffine': 23,
        'conv': 1,
    }
    assert {k: n for k, n in layer_census(discriminator).items() if n} == {
        'NC': 3,
        'NCAffine': 3,
        'conv': 2,
    }
    assert type(generator.layers[-1].conv) is nn.Conv2d
    assert type(discriminator.layers[0].conv) is nn.Conv2d
    assert type(discriminator.layers[-1].conv) is nn.Conv2d


def test_a_convolution_has_a_bias_if_its_norm_has_none():
    bare_in = dict(norm_cfg=dict(type='IN'))  # torch's default has no affine
    no_norm = dict(conv_cfg=dict(type='NC'), norm_cfg=None)
    for slots, expected in ((IN, True), (NC, False), (GN, False), (bare_in, True), (no_norm, True)):
        generator = ResNetGenerator(1, 4, upsample_cfg=dict(type='NCDeconv'), **slots)
        assert (generator.layers[0].conv.bias is not None) is expected
        assert (generator.layers[-2][0].bias is not None) is expected
        net = PatchDiscriminator(2, 4, **slots)
        assert all((layer.conv.bias is not None) is expected for layer in net.layers[1:-1])
        assert net.layers[0].conv.bias is not None
        assert net.layers[-1].conv.bias is not None
