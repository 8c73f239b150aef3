"""Hooks, metrics and a runner for mmengine; importing this module registers them."""

from . import (
    census,
    checkpoints,
    data_check,
    history,
    metrics,
    pictures,
    record,
    reliable_runner,
    seeding,
)

__all__ = [
    'census',
    'checkpoints',
    'data_check',
    'history',
    'metrics',
    'pictures',
    'record',
    'reliable_runner',
    'seeding',
]
