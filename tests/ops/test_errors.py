"""Every mistake at the public door: one sentence with what came and what was wanted."""

import pytest
import torch

from nc_plugins import ops
from nc_plugins.ops import reference

X = torch.zeros(2, 4, 6, 6)
W = torch.zeros(8, 4, 3, 3)
B = torch.zeros(8)


@pytest.mark.parametrize('module', [ops, reference], ids=['ops', 'reference'])
@pytest.mark.parametrize(
    ('arguments', 'options', 'error', 'match'),
    [
        ((X[0], W), {}, ValueError, r'input has shape \(4, 6, 6\), wanted 4 axes'),
        ((X, W[0]), {}, ValueError, r'weight has shape \(4, 3, 3\), wanted 4 axes'),
        ((X[:, :3], W), {}, ValueError, 'input has 3 channels, wanted 4'),
        ((X, W, torch.zeros(7)), {}, ValueError, r'bias has shape \(7,\), wanted \(8,\)'),
        (
            (X, W),
            {'gain': torch.zeros(8, 1)},
            ValueError,
            r'gain has shape \(8, 1\), wanted \(8,\)',
        ),
        ((X, W), {'groups': 0}, ValueError, 'groups is 0, wanted an integer of at least 1'),
        ((X, W[:, :2]), {'groups': 3}, ValueError, 'input has 4 channels, wanted 6'),
        ((X, W[:7, :2]), {'groups': 2}, ValueError, 'groups is 2, wanted a divisor of 4 .* and 7'),
        ((X, W), {'eps': 0}, ValueError, 'eps is 0, wanted a number above 0'),
        ((X, W), {'eps': float('nan')}, ValueError, 'eps is nan, wanted a number above 0'),
        (
            (X, W),
            {'stride': 0},
            ValueError,
            'stride is 0, wanted an integer or 2 integers of at least 1',
        ),
        ((X, W), {'dilation': (1, 2, 3)}, ValueError, r'dilation is \(1, 2, 3\), wanted'),
        ((X, W), {'padding': -1}, ValueError, 'padding is -1, wanted'),
        ((X, W), {'padding': 'full'}, ValueError, "padding is 'full', wanted integers, 'same' or"),
        ((X, W), {'padding': 'same', 'stride': 2}, ValueError, "padding 'same' needs stride 1"),
        ((X, torch.zeros(8, 4, 7, 7)), {}, ValueError, r'output would have size \(0, 0\)'),
        ((X[:, :1], torch.zeros(8, 1, 1, 1)), {}, ValueError, 'a patch holds 1 value, wanted'),
        ((X, torch.zeros(4, 1, 1, 1)), {'groups': 4}, ValueError, 'a patch holds 1 value, wanted'),
        (
            (X, W.double()),
            {},
            TypeError,
            r'dtypes differ \(input torch.float32, weight torch.float64',
        ),
        ((X.int(), W), {}, TypeError, 'input has dtype torch.int32, wanted a floating point'),
        ((X, W.tolist()), {}, TypeError, 'weight is a list, wanted a Tensor'),
        ((X.to(torch.complex64), W), {}, TypeError, 'input has dtype torch.complex64'),
        ((X, W.to('meta')), {}, ValueError, 'input is on cpu and weight is on meta, wanted one'),
        (
            (
                X,
                W,
                B,
            ),
            {'gain': B.to('meta')},
            ValueError,
            'input is on cpu and gain is on meta',
        ),
        ((None, W), {}, TypeError, 'input is a NoneType, wanted a Tensor'),
        ((X, W), {'stride': None}, TypeError, 'stride is None, wanted an integer or 2 integers'),
        ((X, W), {'stride': 1.0}, TypeError, r'stride is 1\.0, wanted an integer'),
        ((X, W), {'stride': '1'}, TypeError, "stride is '1', wanted an integer"),
        ((X, W), {'dilation': (1, None)}, TypeError, r'dilation is \(1, None\), wanted an integer'),
        ((X, W), {'padding': None}, TypeError, 'padding is None, wanted an integer'),
        ((X, W), {'padding': {}}, TypeError, 'padding is {}, wanted an integer'),
        ((X, W), {'groups': None}, TypeError, 'groups is None, wanted an integer'),
        ((X, W), {'groups': 1.0}, TypeError, r'groups is 1\.0, wanted an integer'),
        ((X, W), {'eps': None}, TypeError, 'eps is None, wanted a number above 0'),
        ((X, W), {'eps': '1'}, TypeError, "eps is '1', wanted a number above 0"),
    ],
)
def test_conv2d(module, arguments, options, error, match):
    with pytest.raises(error, match=match) as caught:
        module.nc_conv2d(*arguments, **options)
    assert str(caught.value).startswith('nc_conv2d: ') and '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('weight', 'options', 'match'),
    [
        (torch.zeros(3, 8, 3, 3), {}, 'input has 4 channels, wanted 3'),
        (torch.zeros(4, 8, 3, 3), {'groups': 3}, 'groups is 3, wanted a divisor of 4'),
        (
            torch.zeros(4, 8, 3, 3),
            {'output_padding': 1},
            r'output_padding is \(1, 1\), wanted less',
        ),
        (torch.zeros(4, 8, 3, 3), {'padding': 'same'}, "padding is 'same', wanted integers"),
        (torch.zeros(4, 8, 1, 1), {'padding': 3}, 'output would have size'),
        (torch.zeros(4, 1, 2, 2), {'groups': 4, 'stride': 2}, 'a patch holds 1 value'),
    ],
)
def test_conv_transpose2d(weight, options, match):
    with pytest.raises(ValueError, match=match):
        ops.nc_conv_transpose2d(X, weight, **options)


@pytest.mark.parametrize('operator', ['nc_conv1d', 'nc_conv3d'])
def test_rank_of_the_others(operator):
    with pytest.raises(ValueError, match=f'{operator}: input has shape'):
        getattr(ops, operator)(X, W)


def test_unknown_backend():
    wanted = "backend is 'cudnn', wanted one of 'auto', 'triton', 'cpu', 'aten', 'reference'"
    with pytest.raises(ValueError, match=wanted):
        ops.nc_conv2d(X, W, backend='cudnn')


def test_a_named_backend_that_cannot_run_says_why_and_auto_takes_another():
    weight = torch.zeros(4, 8, 3, 3)
    with pytest.raises(ValueError, match="'cpu' cannot run here: it has no transposed convolution"):
        ops.nc_conv_transpose2d(X, weight, backend='cpu')
    assert ops.nc_conv_transpose2d(X, weight).shape == (2, 8, 8, 8)
    with pytest.raises(ValueError, match="'cpu' cannot run here: input is on meta"):
        ops.nc_conv2d(X.to('meta'), W.to('meta'), backend='cpu')
    assert ops.nc_conv2d(X.to('meta'), W.to('meta')).is_meta


def test_a_float_is_refused_after_the_equal_integer_was_taken():
    """The geometry is cached by its arguments, and 2.0 == 2."""
    ops.nc_conv2d(X, W, stride=2)
    with pytest.raises(TypeError, match=r'stride is 2\.0'):
        ops.nc_conv2d(X, W, stride=2.0)


def test_two_values_are_enough():
    assert ops.nc_conv2d(X[:, :2], torch.zeros(8, 2, 1, 1)).shape == (2, 8, 6, 6)
