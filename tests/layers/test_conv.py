"""The layers against the operators and against nn.ConvNd."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nc_plugins.layers import NCConv1d, NCConv2d, NCConv3d, NCConvTranspose2d
from nc_plugins.ops import reference

LAYERS = [
    (NCConv1d, nn.Conv1d, (12,)),
    (NCConv2d, nn.Conv2d, (9, 8)),
    (NCConv3d, nn.Conv3d, (5, 6, 7)),
    (NCConvTranspose2d, nn.ConvTranspose2d, (5, 4)),
]
layers = pytest.mark.parametrize(('layer', 'plain', 'size'), LAYERS, ids=lambda v: str(v))


@layers
def test_is_the_operator(layer, plain, size):
    module = layer(4, 6, 3, stride=2, padding=1, groups=2, eps=0.1).double()
    x = torch.randn(2, 4, *size).double()
    name = {'NCConvTranspose2d': 'nc_conv_transpose2d'}.get(layer.__name__, f'nc_conv{len(size)}d')
    expected = getattr(reference, name)(
        x, module.weight, module.bias, stride=2, padding=1, groups=2, eps=0.1
    )
    torch.testing.assert_close(module(x), expected)


@layers
def test_takes_the_arguments_of_its_parent(layer, plain, size):
    assert issubclass(layer, plain) and plain in layer.__bases__  # init_cfg goes by direct bases
    if layer is NCConvTranspose2d:
        module = layer(4, 6, 3, 2, 1, 1, 2, False, 1, 'zeros')
    else:
        module = layer(4, 6, 3, 2, 1, 1, 2, False, 'zeros')
    assert module.bias is None and module.groups == 2 and module.dilation == (1,) * len(size)
    assert module(torch.randn(1, 4, *size)).shape[1] == 6


@layers
@pytest.mark.parametrize('affine', [False, True])
def test_a_plain_state_dict_loads(layer, plain, size, affine):
    for bias in (True, False):
        source = plain(4, 6, 3, bias=bias)
        module = layer(4, 6, 3, bias=bias, affine=affine)
        module.load_state_dict(source.state_dict())
        torch.testing.assert_close(module.weight, source.weight)
        if bias:
            torch.testing.assert_close(module.bias, source.bias)
    with pytest.raises(RuntimeError, match='weight'):
        layer(4, 6, 3, affine=affine).load_state_dict({})


@layers
def test_own_affine(layer, plain, size):
    module = layer(4, 6, 3, affine=True, bias=False).double()
    assert dict(module.named_parameters()).keys() == {'weight', 'bias', 'own_gain.weight'}
    bare = layer(4, 6, 3, bias=False).double()
    bare.load_state_dict({'weight': module.weight})
    x = torch.randn(2, 4, *size).double()
    torch.testing.assert_close(module(x), bare(x))  # starts as the identity
    nn.init.normal_(module.gain)
    nn.init.normal_(module.bias)
    shape = (1, -1) + (1,) * len(size)
    expected = bare(x) * module.gain.view(shape) + module.bias.view(shape)
    torch.testing.assert_close(module(x), expected)
    module.reset_parameters()
    assert (module.gain == 1).all() and (module.bias == 0).all()


def test_the_old_name_of_the_gain_loads():
    module = NCConv2d(4, 6, 3, affine=True)
    state = module.state_dict()
    state['gain'] = 2 * state.pop('own_gain.weight')
    other = NCConv2d(4, 6, 3, affine=True)
    other.load_state_dict(state)
    torch.testing.assert_close(other.gain, 2 * module.gain)


@pytest.mark.parametrize('mode', ['zeros', 'reflect', 'replicate', 'circular'])
@pytest.mark.parametrize('padding', [2, 'same'])
@pytest.mark.parametrize(('layer', 'plain', 'size'), LAYERS[:3], ids=lambda v: str(v))
def test_padding_modes(layer, plain, size, mode, padding):
    """Padding is nn.ConvNd's: with centring and scaling off the two layers agree."""
    options = {'padding': padding, 'padding_mode': mode}
    source = plain(4, 6, 3, **options).double()
    x = torch.randn(2, 4, *size).double()
    off = layer(4, 6, 3, **options, center=False, scale=False).double()
    off.load_state_dict(source.state_dict())
    torch.testing.assert_close(off(x), source(x))
    on = layer(4, 6, 3, **options).double()
    on.load_state_dict(source.state_dict())
    pads = (2, 2) if padding == 2 else (1, 1)
    kind = {'zeros': 'constant'}.get(mode, mode)
    padded = F.pad(x, pads * len(size), mode=kind)
    expected = getattr(reference, f'nc_conv{len(size)}d')(padded, on.weight, on.bias)
    torch.testing.assert_close(on(x), expected)


@pytest.mark.parametrize(('center', 'scale'), [(True, False), (False, True)])
def test_switches_reach_the_operator(center, scale):
    module = NCConv2d(4, 6, 3, center=center, scale=scale).double()
    x = torch.randn(2, 4, 7, 7).double() + 1
    expected = reference.nc_conv2d(x, module.weight, module.bias, center=center, scale=scale)
    torch.testing.assert_close(module(x), expected)
    assert not torch.allclose(module(x), reference.nc_conv2d(x, module.weight, module.bias))


def test_weight_standardization_is_that_of_mmcv_over_root_fan_in():
    pytest.importorskip('mmcv')
    from mmcv.cnn.bricks.conv_ws import conv_ws_2d

    module = NCConv2d(4, 6, 3, weight_standardize=True, bias=False).double()
    x = torch.randn(2, 4, 7, 7).double()
    # A dot product with a patch is the convolution of that patch: standardised patches in, the
    # formula of mmcv must give the same as the layer.
    columns = F.unfold(x, 3)
    rows = columns - columns.mean(1, keepdim=True)
    rows = rows / (columns.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    patches = rows.transpose(1, 2).reshape(-1, 4, 3, 3)
    expected = conv_ws_2d(patches, module.weight).view(2, 5, 5, 6).permute(0, 3, 1, 2) / 36**0.5
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize('groups', [1, 2])
def test_weight_standardization_of_transposed_filters(groups):
    module = NCConvTranspose2d(4, 6, 3, groups=groups, weight_standardize=True)
    filters = module.standardized_weight(module.weight)
    for group in range(groups):
        rows = slice(group * 4 // groups, (group + 1) * 4 // groups)
        for output in range(6 // groups):
            one = filters[rows, output]
            assert one.mean().abs() < 1e-6
            assert one.std().item() == pytest.approx((4 // groups * 9) ** -0.5, rel=1e-3)
    module(torch.randn(1, 4, 5, 5)).sum().backward()


def test_transposed_output_size():
    module = NCConvTranspose2d(4, 6, 3, stride=2)
    x = torch.randn(1, 4, 5, 5)
    assert module(x).shape[2:] == (11, 11)
    assert module(x, output_size=[12, 11]).shape[2:] == (12, 11)


@pytest.mark.parametrize(
    ('layer', 'options', 'match'),
    [
        (NCConv2d, {'in_channels': 1, 'kernel_size': 1}, 'NCConv2d: a patch holds 1 value'),
        (NCConv2d, {'in_channels': 4, 'groups': 4, 'kernel_size': 1}, 'a patch holds 1 value'),
        (NCConv2d, {'eps': 0.0}, 'NCConv2d: eps is 0.0, wanted a number above 0'),
        (NCConv2d, {'backend': 'cudnn'}, "NCConv2d: backend is 'cudnn', wanted one of"),
        (NCConv2d, {'in_channels': 3, 'groups': 2}, 'in_channels must be divisible by groups'),
        (NCConvTranspose2d, {'in_channels': 1, 'stride': 3}, 'a patch holds 1 value'),
    ],
)
def test_mistakes_are_caught_at_construction(layer, options, match):
    with pytest.raises(ValueError, match=match):
        layer(**{'in_channels': 2, 'out_channels': 4, 'kernel_size': 3, **options})


def test_repr_names_what_is_not_usual():
    assert repr(NCConv2d(3, 8, 3)) == (
        'NCConv2d(3, 8, kernel_size=(3, 3), stride=(1, 1), eps=1e-05)'
    )
    text = repr(NCConvTranspose2d(3, 8, 3, affine=True, weight_standardize=True, scale=False))
    assert 'scale=False, affine=True, weight_standardize=True' in text


def test_copies_and_pickles():
    module = NCConv2d(3, 8, 3, affine=True)
    x = torch.randn(1, 3, 6, 6)
    expected = module.train()(x)  # after a marked training forward too
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        torch.testing.assert_close(other(x), expected)


def test_layers_follow_device_and_dtype_arguments():
    module = NCConv2d(3, 8, 3, affine=True, dtype=torch.float64, device='meta')
    assert module.gain.dtype == torch.float64 and module.gain.is_meta and module.bias.is_meta


def test_named_backend_is_used(monkeypatch):
    called = []
    monkeypatch.setattr(reference, 'nc_conv', lambda *a: called.append(a) or torch.zeros(1))
    NCConv2d(3, 8, 3, backend='reference').eval()(torch.randn(1, 3, 6, 6))
    assert len(called) == 1
