"""Hooks and metrics for mmengine's Runner; importing this module registers them."""

from . import census, data_check, history, metrics, pictures, random_state, record

__all__ = ['census', 'data_check', 'history', 'metrics', 'pictures', 'random_state', 'record']
