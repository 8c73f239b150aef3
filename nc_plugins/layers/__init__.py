"""nn.Modules over nc_plugins.ops."""

from .census import layer_census
from .conv import NCConv1d, NCConv2d, NCConv3d, NCConvTranspose2d
from .half_swap import HalfSwapError
from .norm import NCAffine, PositionalNorm

__all__ = [
    'HalfSwapError',
    'NCAffine',
    'NCConv1d',
    'NCConv2d',
    'NCConv3d',
    'NCConvTranspose2d',
    'PositionalNorm',
    'layer_census',
]
