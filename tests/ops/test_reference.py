"""The definition against the paper's equations, one patch at a time in plain Python loops."""

import math

import pytest
import torch

from nc_plugins.ops import reference


def test_one_patch_at_a_time():
    torch.manual_seed(0)
    x, weight = torch.randn(2, 4, 5, 6).double(), torch.randn(6, 2, 3, 2).double()
    bias, gain = torch.randn(6).double(), torch.randn(6).double()
    out = reference.nc_conv2d(
        x,
        weight,
        bias,
        stride=(2, 1),
        padding=(1, 2),
        dilation=(1, 2),
        groups=2,
        gain=gain,
        eps=0.1,
    )
    assert out.shape == (2, 6, 3, 8)
    for n, o, i, j in torch.cartesian_prod(*map(torch.arange, out.shape)).tolist():
        patch, taps = [], []
        for c in range(2):
            for a in range(3):
                for b in range(2):
                    row, column = i * 2 - 1 + a, j - 2 + 2 * b
                    inside = 0 <= row < 5 and 0 <= column < 6
                    patch.append(x[n, o // 3 * 2 + c, row, column].item() if inside else 0.0)
                    taps.append(weight[o, c, a, b].item())
        mean = sum(patch) / 12
        var = sum((p - mean) ** 2 for p in patch) / 12
        dot = sum(t * (p - mean) / math.sqrt(var + 0.1) for t, p in zip(taps, patch, strict=True))
        assert out[n, o, i, j].item() == pytest.approx(gain[o].item() * dot + bias[o].item())


def test_one_transposed_position_at_a_time():
    torch.manual_seed(0)
    x, weight = torch.randn(1, 4, 3, 2).double(), torch.randn(4, 2, 3, 4).double()
    stride, padding, dilation, extra = (2, 3), (1, 2), (1, 2), (1, 0)
    out = reference.nc_conv_transpose2d(
        x, weight, None, stride, padding, extra, groups=2, dilation=dilation
    )
    plain = torch.nn.functional.conv_transpose2d(
        x, weight, None, stride, padding, extra, 2, dilation
    )
    assert out.shape == plain.shape
    for o, i, j in torch.cartesian_prod(*map(torch.arange, out.shape[1:])).tolist():
        values, taps = [], []
        for row in range(3):
            for column in range(2):
                for a in range(3):
                    for b in range(4):
                        if (row * 2 - 1 + a, column * 3 - 2 + 2 * b) == (i, j):
                            for c in range(2):
                                values.append(x[0, o // 2 * 2 + c, row, column].item())
                                taps.append(weight[o // 2 * 2 + c, o % 2, a, b].item())
        if not values:
            assert out[0, o, i, j] == 0
            continue
        mean = sum(values) / len(values)
        var = sum((v - mean) ** 2 for v in values) / len(values)
        dot = sum(t * (v - mean) for t, v in zip(taps, values, strict=True))
        assert out[0, o, i, j].item() == pytest.approx(dot / math.sqrt(var + 1e-5))
