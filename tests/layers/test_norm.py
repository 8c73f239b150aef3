"""NCAffine and PositionalNorm."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nc_plugins.layers import NCAffine, NCConv2d, PositionalNorm


@pytest.mark.parametrize('shape', [(2, 6, 5), (2, 6, 5, 4), (2, 6, 3, 4, 5), (0, 6, 5, 4)])
def test_affine(shape):
    module = NCAffine(6, allow_plain=True)
    x = torch.randn(shape)
    torch.testing.assert_close(module(x), x)
    nn.init.normal_(module.weight)
    nn.init.normal_(module.bias)
    column = (1, 6) + (1,) * (len(shape) - 2)
    expected = x * module.weight.view(column) + module.bias.view(column)
    torch.testing.assert_close(module(x), expected)


def test_positional_norm_is_layer_norm_over_channels():
    module = PositionalNorm(6, eps=0.1)
    nn.init.normal_(module.weight)
    x = torch.randn(2, 6, 5, 4)
    normed = F.layer_norm(x.movedim(1, -1), (6,), module.weight, module.bias, 0.1)
    torch.testing.assert_close(module(x), normed.movedim(-1, 1))


def test_one_by_one_nc_equals_positional_norm_and_convolution():
    convolution, norm = NCConv2d(6, 8, 1, bias=False), PositionalNorm(6)
    x = torch.randn(2, 6, 5, 4)
    torch.testing.assert_close(convolution(x), F.conv2d(norm(x), convolution.weight))


@pytest.mark.parametrize('module', [NCAffine(6, allow_plain=True), PositionalNorm(6)], ids=repr)
def test_memory_format_and_dtype(module):
    x = torch.randn(2, 6, 5, 4)
    assert module(x).is_contiguous()
    layout = torch.channels_last
    assert module(x.to(memory_format=layout)).is_contiguous(memory_format=layout)
    if isinstance(module, NCAffine):
        with torch.autocast('cpu', torch.bfloat16):
            assert module(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize('layer', [NCAffine, PositionalNorm])
def test_treated_as_a_norm(layer):
    """mmengine and mmcv go by class: weight decay rules, init_cfg names, is_norm."""
    assert layer.__bases__ == (nn.GroupNorm,)
    module = layer(6)
    assert [name for name, _ in module.named_parameters()] == ['weight', 'bias']
    with pytest.raises(ValueError, match=rf'{layer.__name__}: input has shape \(2, 5, 4, 4\), wan'):
        module.eval()(torch.randn(2, 5, 4, 4))


def test_repr():
    assert repr(NCAffine(6)) == 'NCAffine(6)'
    assert repr(PositionalNorm(6)) == 'PositionalNorm(6, eps=1e-05)'
