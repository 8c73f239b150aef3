#!/usr/bin/env python3
"""Train every config with every seed and compare the results. The first config is the baseline.

    python tools/compare.py configs/classification/resnet18_gn_1xb2_digits.py \\
        configs/classification/resnet18_nc_1xb2_digits.py --seeds 3 --out work_dirs/digits

Writes OUT/report.html, one file with the answer, tables, tests, curves and pictures. The same is in
OUT/report.md, OUT/results.csv and image files. The trainings are in OUT/runs/<config>/seed<k>.
Configs with another default_scope or other validation data form a section of their own in the
report, with their own baseline.

If the config, its base configs and the options are unchanged, a finished training is reused, and
an unfinished one goes on from its last checkpoint (code and data are not checked). Any other
training starts from scratch, and its old folder is renamed. Ctrl-C ends the trainings and writes
the report of those that have finished. If this program is killed, the trainings end too.

Exit code: 0 if every run has finished, 1 if one is missing, 2 if the command line is wrong or a
package is missing, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from command_line import required_imports, run_tool

with required_imports(exit_code=2):
    from filelock import FileLock, Timeout
    from mmengine.config import Config

    from nc_plugins.engine.config_files import read_config
    from nc_plugins.engine.usage import UsageError
    from nc_plugins.report import (
        Job,
        Screen,
        comparison_table,
        comparisons,
        fingerprint,
        plain,
        relative_path,
        run_jobs,
        write_report,
    )

# Keys that this program sets for each run.
RESERVED = ('randomness', 'work_dir', 'run_fingerprint')


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
        help='trainings at a time, which share the CPU threads and reach fewer images/s [1]',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch'],
        default='none',
        help='pytorch: each training runs in several processes of this machine [none]',
    )
    parser.add_argument(
        '--processes',
        type=int,
        default=1,
        metavar='P',
        help='processes of a training with --launcher pytorch; each has its own batches [1]',
    )
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], metavar='K=V', help='changes to every config'
    )
    parser.add_argument('--title', default='', help='heading of the report')
    parser.add_argument(
        '--train-script',
        type=Path,
        default=Path(__file__).with_name('train.py'),
        help='program with the arguments and output files of tools/train.py, to run in its place',
    )
    return parser.parse_args(argv)


def check(args: argparse.Namespace) -> None:
    """Raise UsageError for mistakes in the command line. Writes nothing."""
    for name in ('seeds', 'jobs', 'processes'):
        value = getattr(args, name)
        if value < 1:
            raise UsageError(f'--{name} must be an integer of at least 1, got {value}.')
    if args.processes > 1 and args.launcher == 'none':
        raise UsageError(f'--processes {args.processes} needs --launcher pytorch.')
    if args.out.exists() and not args.out.is_dir():
        raise UsageError(f'--out must be a folder, got the file {args.out}.')
    if not args.train_script.is_file():
        raise UsageError(f'--train-script must be a file, got {args.train_script}.')
    for option in args.cfg_options:
        key, equals, _ = option.partition('=')
        if not equals or not key:
            raise UsageError(f'--cfg-options must be KEY=VALUE, got {option!r}.')
        if key.split('.')[0] in RESERVED:
            raise UsageError(f'--cfg-options cannot set {key}: compare.py sets it for each run.')
    stems: dict[str, str] = {}
    for config in args.configs:
        if not Path(config).is_file():
            raise UsageError(f'there is no config file {config}.')
        stem = Path(config).stem
        if stem in stems:
            raise UsageError(
                f'{stems[stem]} and {config} have the same file name. The runs are named after it: '
                'give each config once, with a file name of its own.'
            )
        stems[stem] = config


def task_of(config: Config) -> str:
    """Package and validation data of ``config``. Configs with the same task can be compared."""
    dataset = (config.get('val_dataloader') or {}).get('dataset') or {}
    data = [str(dataset.get(key, '')) for key in ('data_root', 'ann_file')]
    return ' '.join([str(config.get('default_scope')), *data])


def plan(args: argparse.Namespace) -> list[Job]:
    """A job for each seed of each config. Writes nothing."""
    jobs = []
    for config in args.configs:
        resolved = read_config(config, import_modules=False)
        task = task_of(resolved)
        for seed in range(args.seeds):
            options = [f'randomness.seed={seed}', *args.cfg_options]
            # The number of processes changes the batch size, and so the results.
            name = fingerprint(resolved.to_dict(), [*options, *launch(args)[1:]])
            folder = args.out / 'runs' / Path(config).stem / f'seed{seed}'
            # Relative, because the report shows the command and is read on other machines.
            script = relative_path(args.train_script, Path())
            command = [sys.executable, *launch(args), script, config, '--work-dir', str(folder)]
            command += ['--launcher', args.launcher] if args.launcher != 'none' else []
            command += ['--cfg-options', f'run_fingerprint={name}', *options]
            jobs.append(Job(config, seed, folder, name, command, args.processes, task))
    return jobs


def launch(args: argparse.Namespace) -> list[str]:
    """The part of a command line that starts several processes."""
    if args.launcher == 'none':
        return []
    program = relative_path(Path(__file__).with_name('launch.py'), Path())
    return [program, '--standalone', '--nproc-per-node', str(args.processes)]


def compare(args: argparse.Namespace, command: str) -> int:
    check(args)
    jobs = plan(args)
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(args.out / '.lock', blocking=False), single_interrupt():
            return run_and_report(jobs, args, command)
    except Timeout:
        raise UsageError(f'another compare.py is running in {args.out}.') from None


def run_and_report(jobs: list[Job], args: argparse.Namespace, command: str) -> int:
    screen, failed, interrupted = Screen(), {}, False
    try:
        failed = run_jobs(jobs, args.jobs, screen)
    except KeyboardInterrupt:
        interrupted = True
        screen.line('interrupted: the trainings have ended, the report covers the finished ones')
    runs = [job.read() for job in jobs]
    for run, job in zip(runs, jobs, strict=True):
        if not run.done:
            run.why = failed.get(job.name, run.why)
    page = write_report(args.out, runs, command, args.title, args.jobs)
    for summaries in comparisons(runs):
        screen.line('\n' + plain(comparison_table(summaries), screen.width))
    screen.line(f'\nreport: {page}')
    missing = [job.name for job, run in zip(jobs, runs, strict=True) if not run.done]
    if missing:
        print(f'missing: {", ".join(missing)}', file=sys.stderr)
    return 130 if interrupted else int(bool(missing))


@contextlib.contextmanager
def single_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt for SIGTERM and a closed terminal too, but only for the first signal.

    make sends a second signal after Ctrl-C. A second exception would stop the clean-up.
    """
    # Windows has no SIGHUP.
    names = ('SIGINT', 'SIGTERM', 'SIGHUP')
    signals = [getattr(signal, name) for name in names if hasattr(signal, name)]
    previous = {number: signal.getsignal(number) for number in signals}

    def interrupt(*_):
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in signals:
        if previous[number] != signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in signals:
            signal.signal(number, previous[number])


def main(argv: list[str] | None = None) -> int:
    # A terminal without the character ± shows a question mark.
    sys.stdout.reconfigure(errors='replace')
    argv = sys.argv[1:] if argv is None else argv
    args = parse_args(argv)
    program = ['python', sys.argv[0]] if sys.argv[0].endswith('.py') else sys.argv[0].split()
    command = shlex.join([*program, *argv])  # python tools/compare.py, or nc compare
    return run_tool(lambda: compare(args, command), (UsageError, OSError), exit_code=2)


if __name__ == '__main__':
    sys.exit(main())
