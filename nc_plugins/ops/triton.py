"""Normalized convolution as Triton kernels, on CUDA tensors."""

from __future__ import annotations

from torch import Tensor

from .geometry import Geometry


def missing() -> str | None:
    """Why this machine cannot run it."""
    return 'no CUDA device'


def refuses(input: Tensor, weight: Tensor, geometry: Geometry) -> str | None:
    """Why these tensors cannot go through it."""
    return None
