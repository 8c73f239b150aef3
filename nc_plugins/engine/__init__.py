"""Hooks and metrics for mmengine's Runner; importing registers them."""

from . import census

__all__ = ['census']
