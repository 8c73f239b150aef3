"""Normalized convolution on tensors. Knows torch alone."""

from .nc_conv import available_backends, nc_conv1d, nc_conv2d, nc_conv3d, nc_conv_transpose2d

__all__ = ['available_backends', 'nc_conv1d', 'nc_conv2d', 'nc_conv3d', 'nc_conv_transpose2d']
