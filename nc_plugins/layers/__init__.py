"""nn.Modules over nc_plugins.ops."""

from .census import layer_census
from .conv import NCConv1d, NCConv2d, NCConv3d, NCConvTranspose2d
from .deployed import deploy
from .half_swap import HalfSwapError
from .join import join_affines, split_affines
from .norm import NCAffine, PositionalNorm

__all__ = [
    'HalfSwapError',
    'NCAffine',
    'NCConv1d',
    'NCConv2d',
    'NCConv3d',
    'NCConvTranspose2d',
    'PositionalNorm',
    'deploy',
    'join_affines',
    'layer_census',
    'split_affines',
]
