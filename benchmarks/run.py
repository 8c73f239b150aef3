"""Measure NC and the layers that it replaces; --record adds the rows to results.csv.

    # the CPU tables
    python benchmarks/run.py resnet50 models overhead --modes fwd train memory --record
    # the GPU tables
    python benchmarks/run.py resnet50-b32 models models-b32 overhead --modes fwd train memory \\
        --device cuda --dtype bfloat16 --layout channels_last --record
    # docs/benchmarks from results.csv
    python benchmarks/report.py

First, every NC system is compared with the definition in float64 on each case, on a smaller input
if the im2col matrix would be large. One wrong result ends the run before anything is measured.
Then the systems run in alternation in one process, one case after the other. Ratios are taken
within a round, so that a change in the speed of the machine affects both sides. They are rows of
their own, for example 'time / conv+gn'.

Modes:
    fwd     inference: eval mode, no gradients
    train   forward and backward with all gradients; for a model also the loss and SGD
    bwd     the part of train after the forward pass
    memory  'kept', the bytes that autograd keeps between forward and backward, and for models
            'peak', the peak memory of a training step beyond model and input
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import results
import systems
import torch
from cases import GROUPS, Case
from gate import TOLERANCE, WrongResult, gate
from measure import memory, times
from report import timings
from results import Row
from systems import Options, systems_of

from nc_plugins.ops import cpu, triton
from nc_plugins.report import plain


def measure(
    cases: Sequence[Case],
    wanted: Sequence[str],
    modes: Sequence[str],
    rounds: int,
    options: Options,
    record: Path | None,
) -> list[Row]:
    """Check the results, then measure. The rows of each case are recorded at once."""
    gate(cases, wanted, options, say)
    found, start = [], time.monotonic()
    total, done = sum(case.products for case in cases), 0
    for i, case in enumerate(cases, start=1):
        elapsed = time.monotonic() - start
        left = f', about {elapsed / done * (total - done):.0f} s left' if done else ''
        say(f'{i}/{len(cases)} after {elapsed:.0f} s{left}: {case.name}')
        names, stamped, new = systems_of(case, wanted, options), stamp(options), []
        for mode, values in times(case, names, modes, rounds, options).items():
            new += rows(case.name, mode, 'time', 'ms', values, stamped)
        if 'memory' in modes:
            for metric, values in memory(case, names, options).items():
                new += rows(case.name, 'train', metric, 'byte', values, stamped)
        if record:
            results.append(record, new)
        found += new
        done += case.products
    return found


def rows(
    case: str, mode: str, metric: str, unit: str, values: Mapping[str, Sequence[float]], stamp: Row
) -> Iterator[Row]:
    """The values of each system, and the ratios to its baselines within each round."""

    def row(name: str, metric: str, unit: str, numbers: Sequence[float]) -> Row:
        key = {'case': case, 'system': name, 'mode': mode, 'metric': metric, 'unit': unit}
        return {**key, **results.quantiles(numbers), **stamp}

    for name, numbers in values.items():
        yield row(name, metric, unit, numbers)
        for base in systems.baselines(name):
            if base in values:
                ratios = [n / b for n, b in zip(numbers, values[base], strict=True)]
                yield row(name, f'{metric} / {base}', '1', ratios)


def stamp(options: Options) -> Row:
    """The columns for conditions, device, versions and time."""
    try:
        triton = version('triton')
    except PackageNotFoundError:
        triton = ''
    return {
        'dtype': options.dtype,
        'layout': options.layout,
        'device': device_name(options.device),
        'threads': str(options.threads),
        'torch': torch.__version__,
        'triton': triton,
        'commit': commit(),
        'utc': datetime.now(timezone.utc).isoformat(timespec='seconds'),
    }


def device_name(device: str) -> str:
    if device == 'cuda':
        return torch.cuda.get_device_name()
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        model = next(line.split(':', 1)[1].strip() for line in lines if 'model name' in line)
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f'CPU {model}'


def commit() -> str:
    """The short commit, with a '+' if files other than the records differ; '' without git."""

    def git(*args: str) -> str:
        command = ['git', '-C', str(Path(__file__).parents[1]), *args]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    records = (':!benchmarks/results.csv', ':!docs/benchmarks')
    try:
        changed = git('status', '--porcelain', '--', '.', *records)
        return git('rev-parse', '--short=10', 'HEAD') + ('+' if changed else '')
    except (OSError, subprocess.CalledProcessError):
        return ''


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('groups', nargs='+', choices=GROUPS, metavar='group', help=', '.join(GROUPS))
    modes = ['fwd', 'bwd', 'train', 'memory']
    add('--modes', nargs='+', default=['fwd', 'train'], choices=modes)
    known = systems.SYSTEMS
    add('--systems', nargs='+', default=[*known], choices=known, help='default: all')
    add('--rounds', type=int, default=20, help='measurements of each system; default 20')
    add('--threads', type=int, default=2, help='default 2')
    add('--dtype', choices=TOLERANCE, default='float32', help='bfloat16 means autocast')
    add('--layout', choices=['nchw', 'channels_last'], default='nchw')
    add('--device', choices=['cpu', 'cuda'], default='cpu')
    target = 'add the rows to benchmarks/results.csv, or to CSV'
    add('--record', nargs='?', type=Path, const=results.RESULTS, metavar='CSV', help=target)
    args = parser.parse_args(argv)

    options = Options(args.threads, args.dtype, args.layout, args.device)
    torch.set_num_threads(options.threads)
    logging.basicConfig(format='%(message)s')
    logging.getLogger('nc_plugins').setLevel(logging.INFO)  # logs which backend 'auto' runs
    if 'convws+gn' not in systems.SYSTEMS:
        say('without convws+gn: mmcv is not installed')
    missing = cpu.missing() if options.device == 'cpu' else triton.missing()
    if args.record and missing:  # the rows of 'nc' would be those of a slower backend
        say(f'error: nothing is recorded without the backend for this device: {missing}')
        return 1
    load = os.getloadavg()[0]  # runnable tasks, over the last minute
    if load > 0.5:
        say(f'load average {load:.1f} before the start: other programs disturb the measurement')
    cases = [case for group in args.groups for case in GROUPS[group]]
    try:
        found = measure(cases, args.systems, args.modes, args.rounds, options, args.record)
    except WrongResult as error:
        say(f'error: {error}')
        return 1
    for title, table in timings(found):
        print(f'\n{title}\n\n{plain(table)}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
