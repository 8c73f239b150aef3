"""Hooks, metrics and a runner for mmengine; importing this module registers them."""

from . import (
    calibrate,
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
    'calibrate',
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
