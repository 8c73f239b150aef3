"""Hooks and metrics for mmengine's Runner; importing this module registers them."""

from . import census, history, metrics, random_state, record

__all__ = ['census', 'history', 'metrics', 'random_state', 'record']
