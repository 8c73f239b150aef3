"""Runs that were never trained, for the tests of the report."""

from dataclasses import replace
from pathlib import Path

from nc_plugins.records import Record
from nc_plugins.report.runs import Run

GN, NC = 'configs/gn.py', 'configs/nc.py'
RECORD = Record(
    images_per_second=100.0,
    peak_memory_mb=512.4,
    memory_kind='process peak RSS',
    device='CPU x',
    threads=2,
    torch='2.11.0',
    commit='c0ffee',
    utc_start='2025-01-01T00:00:00+00:00',
    utc_end='2025-01-01T00:10:00+00:00',
    census={'NC': 20, 'conv': 0, 'NCAffine': 20},
)


def run(config, seed, top1, loss=0.5, val_loss=(1.0, 0.8), status='finished', **record):
    """A run of two epochs. ``top1`` is the accuracy after the second."""
    validations = [
        (1, {'accuracy/top1': top1 - 10, 'val/loss': val_loss[0]}),
        (2, {'accuracy/top1': top1, 'val/loss': val_loss[1]}),
    ]
    return Run(
        config,
        seed,
        Path('runs') / config / str(seed),
        status=status,
        why='',
        max_x=2,
        train=[(1, 2.0), (2, loss)],
        validations=validations,
        record=replace(RECORD, **record),
        command=f'python tools/train.py {config}',
    )


def missing(config, seed, why='exit code 1'):
    return Run(config, seed, Path('nowhere'), why=why, max_x=2, train=[(1, 2.0)])
