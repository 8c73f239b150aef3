"""Counting layers by kind."""

from torch import nn

import nc_plugins
from nc_plugins.layers import NCAffine, NCConv1d, NCConv2d, NCConvTranspose2d, PositionalNorm


def test_every_kind():
    class ConvWS2d(nn.Conv2d):
        """Named as mmcv's."""

    model = nn.ModuleList(
        [
            NCConv2d(3, 4, 3), NCConv1d(3, 4, 3), NCConvTranspose2d(3, 4, 3),
            NCConv2d(3, 4, 3, weight_standardize=True), nn.Conv2d(3, 4, 3),
            nn.ConvTranspose2d(3, 4, 3), ConvWS2d(3, 4, 3), NCAffine(4), PositionalNorm(4),
            nn.GroupNorm(1, 4), nn.LayerNorm(4), nn.InstanceNorm2d(4), nn.BatchNorm2d(4),
            nn.SyncBatchNorm(4), nn.Linear(3, 4), nn.ReLU(),
        ]
    )  # fmt: skip
    assert nc_plugins.layer_census(nn.Sequential(model, model[0])) == {
        'NC': 3, 'NCWS': 1, 'conv': 2, 'ConvWS': 1, 'NCAffine': 1, 'PN': 1, 'GN': 1, 'LN': 1,
        'IN': 1, 'BN': 2,
    }  # fmt: skip
