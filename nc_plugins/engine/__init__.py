"""Hooks, metrics and a runner for mmengine; importing this module registers them."""

from . import census, checkpoints, history, metrics, record, reliable_runner, seeding

__all__ = [
    'census',
    'checkpoints',
    'history',
    'metrics',
    'record',
    'reliable_runner',
    'seeding',
]
