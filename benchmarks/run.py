"""Measure NC beside what a user would pick instead; --record adds the rows to results.csv.

    python benchmarks/run.py resnet50 models --modes fwd train memory --record    # the CPU figures
    python benchmarks/run.py resnet50-b32 models models-b32 --modes train memory --record \\
        --device cuda --dtype bfloat16 --layout channels_last                     # the GPU figures
    python benchmarks/report.py                                                   # tables and plots

First every NC system is compared with the definition in float64 on each case (a smaller one where
im2col would be large). One wrong result ends the run before anything is measured. Then, case by
case, the systems take turns in one process. Ratios are taken within a round, so that a machine that
slows down slows both sides; they are rows of their own ('time / conv+gn').

Modes: fwd is inference (eval, no gradients); train is forward and backward with all gradients, of
a model with its loss and SGD; bwd is what follows the forward pass, in the same turns as train;
memory is 'kept', the bytes which autograd keeps between forward and backward, and for models
'peak', what a training step takes at most beyond model and input.
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

BASELINES = ('conv', 'conv+gn', 'convws+gn')  # what systems that claim to be NC are divided by


def measure(
    cases: Sequence[Case],
    wanted: Sequence[str],
    modes: Sequence[str],
    rounds: int,
    options: Options,
    record: Path | None,
) -> list[Row]:
    """Gate, then measure; the rows of a case are recorded as soon as it is done."""
    gate(cases, wanted, options, say)
    found, start = [], time.monotonic()
    total, done = sum(case.products for case in cases), 0
    for i, case in enumerate(cases, start=1):
        gone = time.monotonic() - start
        left = f', about {gone / done * (total - done):.0f} s left' if done else ''
        say(f'{i}/{len(cases)} after {gone:.0f} s{left}: {case.name}')
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
    """Each system's figure, and the ratios of NC to what it is compared with, round by round."""

    def row(name: str, metric: str, unit: str, numbers: Sequence[float]) -> Row:
        what = {'case': case, 'system': name, 'mode': mode, 'metric': metric, 'unit': unit}
        return {**what, **results.spread(numbers), **stamp}

    for name, numbers in values.items():
        yield row(name, metric, unit, numbers)
        bases = BASELINES if systems.claims_nc(name) else ()
        if name == 'definition':
            bases = (*bases, 'nc')
        for base in bases:
            if base in values:
                ratios = [n / b for n, b in zip(numbers, values[base], strict=True)]
                yield row(name, f'{metric} / {base}', '1', ratios)


def stamp(options: Options) -> Row:
    """The columns that say where, with what and when."""
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
    """Short commit, with a '+' if anything but the records differs from it; '' without git."""

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
    add('--rounds', type=int, default=20, help='turns of each system; default 20')
    add('--threads', type=int, default=2, help='default 2')
    add('--dtype', choices=TOLERANCE, default='float32', help='bfloat16 is autocast')
    add('--layout', choices=['nchw', 'channels_last'], default='nchw')
    add('--device', choices=['cpu', 'cuda'], default='cpu')
    to = 'add the rows to benchmarks/results.csv, or to CSV'
    add('--record', nargs='?', type=Path, const=results.RESULTS, metavar='CSV', help=to)
    args = parser.parse_args(argv)

    options = Options(args.threads, args.dtype, args.layout, args.device)
    torch.set_num_threads(options.threads)
    logging.basicConfig(format='%(message)s')
    logging.getLogger('nc_plugins').setLevel(logging.INFO)  # which backend 'auto' runs
    if 'convws+gn' not in systems.SYSTEMS:
        say('without convws+gn: mmcv is not installed')
    missing = cpu.missing() if options.device == 'cpu' else triton.missing()
    if args.record and missing:  # a row of 'nc' would then be one of a slower backend
        say(f'error: nothing is recorded without the backend for this device: {missing}')
        return 1
    load = os.getloadavg()[0]  # runnable tasks, over the last minute
    if load > 0.5:
        say(f'load average {load:.1f} before the start: other work blurs the figures')
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
