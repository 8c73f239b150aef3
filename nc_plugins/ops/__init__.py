"""Normalized convolution on tensors. Imports nothing but torch."""

from .dispatch import available_backends
from .nc_conv import nc_conv1d, nc_conv2d, nc_conv3d, nc_conv_transpose2d

__all__ = ['available_backends', 'nc_conv1d', 'nc_conv2d', 'nc_conv3d', 'nc_conv_transpose2d']
