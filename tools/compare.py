#!/usr/bin/env python3
"""Train every config with every seed and put the results side by side; the first is the baseline.

    python tools/compare.py configs/classification/resnet18_gn_1xb2_digits.py \
        configs/classification/resnet18_nc_1xb2_digits.py --seeds 3 --out work_dirs/digits

Configs of another package (default_scope), or validated on other data, make a comparison of their
own, with a baseline of their own, in the same report. Writes OUT/report.md, OUT/results.csv, curves
and the pictures that the runs drew; the trainings lie in OUT/runs/<config>/seed<k>. A finished
training is reused as long as its config, the configs under it and the options are what they were
(code and data are not checked); any other is trained from scratch, and what lay in its folder is
kept under another name. Ctrl-C ends the trainings and still writes the report of those that
finished.

Exit code: 0 if every run is there, 1 if one is missing, 2 if the command line is wrong, 130 after
Ctrl-C.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib.util
import os
import shlex
import signal
import sys
from pathlib import Path

# Set by this program, run by run.
RESERVED = ('randomness', 'work_dir', 'run_fingerprint')


class UsageError(ValueError):
    """The command line asks for something that cannot be done; nothing was written."""


def parse_args(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='the first is the baseline')
    parser.add_argument('--seeds', type=int, default=1, metavar='N', help='seeds 0 to N-1 [1]')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='where to write')
    parser.add_argument(
        '--jobs',
        type=int,
        default=1,
        metavar='J',
        help='trainings at once, each with a J-th of the CPU threads; images/s suffers [1]',
    )
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], metavar='K=V', help='changes to every config'
    )
    parser.add_argument('--title', default='', help='first line of the report')
    parser.add_argument(
        '--train-script',
        type=Path,
        default=Path(__file__).with_name('train.py'),
        help='program to run instead of tools/train.py, with the same arguments and files',
    )
    return parser.parse_args(argv)


def report_room():
    """nc_plugins.report, alone: it needs neither torch nor OpenMMLab.

    ``import nc_plugins.report`` would load both through ``nc_plugins``, ten seconds of a processor
    on every call of this program.
    """
    folder = Path(__file__).resolve().parents[1] / 'nc_plugins' / 'report'
    spec = importlib.util.spec_from_file_location(
        'nc_plugins_report', folder / '__init__.py', submodule_search_locations=[str(folder)]
    )
    room = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = room
    spec.loader.exec_module(room)
    return room


def check(args: argparse.Namespace) -> None:
    """Raise UsageError for what the command line alone shows to be wrong."""
    for name, value in (('--seeds', args.seeds), ('--jobs', args.jobs)):
        if value < 1:
            raise UsageError(f'{name} wants an integer of at least 1, got {value}.')
    if args.out.exists() and not args.out.is_dir():
        raise UsageError(f'--out wants a folder, got the file {args.out}.')
    if not args.train_script.is_file():
        raise UsageError(f'--train-script wants a file, got {args.train_script}.')
    for option in args.cfg_options:
        key, equals, _ = option.partition('=')
        if not equals or not key:
            raise UsageError(f'--cfg-options wants KEY=VALUE, got {option!r}.')
        if key.split('.')[0] in RESERVED:
            raise UsageError(f'--cfg-options cannot set {key}: compare.py sets it for each run.')
    stems: dict[str, str] = {}
    for config in args.configs:
        if not Path(config).is_file():
            raise UsageError(f'there is no config file {config}.')
        stem = Path(config).stem
        if stem in stems:
            raise UsageError(
                f'{stems[stem]} and {config} have the same file name, which is what names the '
                'runs: give each config once, under a name of its own.'
            )
        stems[stem] = config


def task_of(config) -> str:
    """What ``config`` is validated on: configs with the same package and data can be compared."""
    dataset = (config.get('val_dataloader') or {}).get('dataset') or {}
    data = [str(dataset.get(key, '')) for key in ('data_root', 'ann_file')]
    return ' '.join([str(config.get('default_scope')), *data])


def plan(args: argparse.Namespace, report) -> list:
    """One job per config and seed, config by config; writes nothing."""
    from mmengine.config import Config

    jobs = []
    for config in args.configs:
        try:
            resolved = Config.fromfile(config, import_custom_modules=False)
        except Exception as error:
            raise UsageError(f'cannot read {config}: {type(error).__name__}: {error}') from error
        task = task_of(resolved)
        for seed in range(args.seeds):
            options = [f'randomness.seed={seed}', *args.cfg_options]
            name = report.fingerprint(resolved.to_dict(), options)
            folder = args.out / 'runs' / Path(config).stem / f'seed{seed}'
            # Relative: the command is written down, and no machine's folders belong there.
            script = os.path.relpath(args.train_script)
            command = [sys.executable, script, config, '--work-dir', str(folder)]
            command += ['--cfg-options', f'run_fingerprint={name}', *options]
            jobs.append(report.Job(config, seed, folder, name, command, task))
    return jobs


def compare(args: argparse.Namespace, command: str) -> int:
    check(args)
    report = report_room()
    jobs = plan(args, report)
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / '.lock').open('w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(f'another compare.py is at work in {args.out}.') from None
        screen, failed, interrupted = report.Screen(), {}, False
        try:
            failed = report.run_jobs(jobs, args.jobs, screen)
        except KeyboardInterrupt:
            interrupted = True
            screen.line('interrupted: trainings ended, writing the report of what is there')
        runs = [job.read() for job in jobs]
        for run, job in zip(runs, jobs, strict=True):
            if not run.done:
                run.why = failed.get(job.name, run.why)
        page = report.write_report(args.out, runs, command, args.title, args.jobs)
        for summaries in report.comparisons(runs):
            table = report.comparison_table(summaries)
            screen.line('\n' + report.plain(table, screen.width))
        screen.line(f'\nreport: {page}')
    missing = [job.name for job, run in zip(jobs, runs, strict=True) if not run.done]
    if missing:
        print(f'missing: {", ".join(missing)}', file=sys.stderr)
    return 130 if interrupted else int(bool(missing))


def main() -> int:
    endings = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(*_):
        # Once: make passes on the signal that the process group gets too, and a second exception
        # would break off the ending of the trainings.
        for number in endings:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    # A polite kill, or a terminal that closes, ends the trainings like Ctrl-C does; under nohup,
    # which ignores the latter, it does not.
    for number in endings:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interrupt)
    # A terminal that cannot show ± gets a question mark, not an error.
    sys.stdout.reconfigure(errors='replace')
    args = parse_args(sys.argv[1:])
    try:
        return compare(args, shlex.join(['python', *sys.argv]))
    except (UsageError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f'error: {error}; run `make setup` first', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return 130


if __name__ == '__main__':
    sys.exit(main())
