#!/usr/bin/env python3
"""Train what docs/results/protocol.md needs and docs/results/micro-batch does not have yet.

    python studies/run.py --jobs 2 --hours 2

Every finished training becomes a line of docs/results/micro-batch/runs.csv, and its epochs lines of
epochs.csv. The next call goes on where this one has stopped, on this machine or another. Without
data/cifar10, CIFAR-10 is downloaded into it.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from nc_plugins.engine.config_files import read_config  # noqa: E402
from nc_plugins.report import Job, Screen, fingerprint, run_jobs  # noqa: E402
from studies.results import epochs_of, read_rows, row_of, write_rows  # noqa: E402
from studies.worklist import QUESTIONS, Question, Trial, trials  # noqa: E402

RUNS = ROOT / 'work_dirs/micro-batch'


def missing_trials(question: Question) -> list[Trial]:
    rows = read_rows()
    accuracy = {name: row.top1 for name, row in rows.items()}
    return [trial for trial in trials(question, accuracy) if trial.name not in rows]


def train(some: Sequence[Trial], jobs: int, screen: Screen) -> bool:
    """Train ``some`` and add them to the files. False if a training has failed."""
    by_trial = {trial: job_of(trial) for trial in some}
    failed = run_jobs(list(by_trial.values()), jobs, screen)
    runs = {trial: job.read() for trial, job in by_trial.items()}
    done = {trial: run for trial, run in runs.items() if run.done}
    write_rows(
        [row_of(trial, run) for trial, run in done.items()],
        [line for trial, run in done.items() for line in epochs_of(trial, run)],
    )
    return not failed


def job_of(trial: Trial) -> Job:
    config = f'studies/configs/{trial.setting.config}.py'
    folder = RUNS / trial.name
    resolved = read_config(config, import_modules=False).to_dict()
    name = fingerprint(resolved, trial.options)
    command = [sys.executable, 'tools/train.py', config, '--work-dir', str(folder)]
    command += ['--cfg-options', f'run_fingerprint={name}', *trial.options]
    return Job(config, trial.seed, folder, name, command, task='micro-batch')


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [question.name for question in QUESTIONS]
    parser.add_argument('--only', nargs='+', choices=names, default=names, metavar='QUESTION')
    parser.add_argument('--jobs', type=int, default=1, help='trainings at a time [1]')
    parser.add_argument('--hours', type=float, help='start no training after this time')
    parser.add_argument('--dry-run', action='store_true', help='print the commands only')
    args = parser.parse_args()

    os.chdir(ROOT)
    # tools/train.py imports the layers that are defined in studies.
    os.environ['PYTHONPATH'] = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    end = time.monotonic() + 3600 * (args.hours or float('inf'))
    screen = Screen()
    for question in (q for q in QUESTIONS if q.name in args.only):
        while some := missing_trials(question):
            if args.dry_run:
                for trial in some:
                    print(shlex.join(['python', *job_of(trial).command[1:]]))
                break
            screen.line(f'{question.name}: {len(some)} trainings, as far as is known now')
            if time.monotonic() > end:
                screen.line('the time is over')
                return 0
            # Few at a time, so that the files are never far behind.
            if not train(some[: args.jobs], args.jobs, screen):
                return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
