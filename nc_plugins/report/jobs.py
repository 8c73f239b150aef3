"""Runs trainings as child processes."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from statistics import fmean

import psutil
from filelock import FileLock, Timeout

from ..processes import PARENT
from ..records import HISTORY, LOCK, OUTPUT
from .progress import Screen, duration, fraction_done, validation_line
from .runs import Run, read_run
from .saved_config import has_fingerprint

_LOG_LINES = 15
_POLL_SECONDS = 0.3
_GRACE_SECONDS = 10.0
_LOCK_SECONDS = 30.0
_LAST_CHECKPOINT = 'last_checkpoint'  # mmengine writes its path into this file


@dataclass
class Job:
    """A training that a comparison needs.

    Attributes:
        config, seed: what to train.
        folder: the run folder.
        fingerprint: identifies config and options, see ``fingerprint``.
        command: program and arguments. With --resume it continues from the last checkpoint.
        processes: number of processes that the command trains in.
        task: jobs with the same task are compared with each other.
    """

    config: str
    seed: int
    folder: Path
    fingerprint: str
    command: list[str]
    processes: int = 1
    task: str = ''

    @property
    def name(self) -> str:
        return f'{Path(self.config).stem} seed {self.seed}'

    def read(self) -> Run:
        run = read_run(self.config, self.seed, self.folder, self.fingerprint)
        run.command = shlex.join(['python', *self.command[1:]])
        run.task = self.task
        return run

    def checkpoint(self) -> str:
        """Name of the checkpoint from which this training can go on, or an empty string."""
        if not has_fingerprint(self.folder, self.config, self.fingerprint):
            return ''
        try:
            return Path((self.folder / _LAST_CHECKPOINT).read_text('utf-8').strip()).name
        except (OSError, ValueError):
            return ''


def run_jobs(jobs: Sequence[Job], parallel: int, screen: Screen) -> dict[str, str]:
    """Run all unfinished jobs, at most ``parallel`` at a time.

    A finished run with the job's fingerprint is reused, and an unfinished one goes on from its last
    checkpoint. Any other folder is renamed, never deleted, and the training starts from scratch. A
    folder that another training writes to is left alone, and the job fails. An exception,
    KeyboardInterrupt included, ends all trainings before it propagates. If this process is killed,
    the trainings end by themselves.

    Returns: {job name: reason} for the jobs that failed.
    """
    waiting: deque[tuple[str, Job]] = deque()
    for number, job in enumerate(jobs, 1):
        run, title = job.read(), f'[{number}/{len(jobs)}] {job.name}'
        if run.done:
            screen.line(f'{title}: reusing the {run.status} run in {job.folder}')
        else:
            screen.line(f'{title}: to run ({run.why})')
            waiting.append((title, job))

    running: list[_Child] = []
    failed: dict[str, str] = {}
    seconds: dict[str, list[float]] = {}
    try:
        with screen.bars:
            while waiting or running:
                while waiting and len(running) < parallel:
                    title, job = waiting.popleft()
                    try:
                        how = _prepare(job)
                    except Timeout:
                        failed[job.name] = (
                            f'another training writes to {job.folder}: wait for it or end it, '
                            'then run this command again'
                        )
                        screen.line(f'{title}: FAILED, {failed[job.name]}')
                        continue
                    screen.line(f'{title}: {how}')
                    if not job.read().done:
                        running.append(_Child(title, job, parallel))
                time.sleep(_POLL_SECONDS)
                for child in list(running):
                    # Poll before reading the files, so that the last lines are not missed.
                    code = child.process.poll()
                    for line in child.new_validations():
                        left = _time_left(running, [job for _, job in waiting], seconds, parallel)
                        screen.line(f'{child.title}, {line}{left}')
                    if code is None:
                        continue
                    running.remove(child)
                    if why := child.end(code, screen):
                        failed[child.job.name] = why
                    else:
                        seconds.setdefault(child.job.task, []).append(child.expected or child.age)
                screen.show({child.title: child.run for child in running})
    finally:
        _stop([child.process for child in running])
    return failed


class _Child:
    """A running training. ``run`` is its folder as last read."""

    def __init__(self, title: str, job: Job, parallel: int) -> None:
        self.title, self.job = title, job
        self.started = time.monotonic()
        self._size = -1
        job.folder.mkdir(parents=True, exist_ok=True)
        self.run = job.read()
        self._printed = len(self.run.validations)
        self._begun = fraction_done(self.run)
        env = {**os.environ, 'PYTHONUNBUFFERED': '1', PARENT: str(os.getpid())}
        if parallel * job.processes > 1:
            env['OMP_NUM_THREADS'] = str(max(1, _cores() // (parallel * job.processes)))
        command = [*job.command, *(['--resume'] if job.checkpoint() else [])]
        with (job.folder / OUTPUT).open('ab') as log:
            # In a process group of its own the training does not receive Ctrl-C. This program
            # does, and ends the training with its data loading workers.
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,  # POSIX
                creationflags=getattr(subprocess, 'CREATE_NEW_PROCESS_GROUP', 0),  # Windows
            )

    @property
    def age(self) -> float:
        return time.monotonic() - self.started

    @property
    def expected(self) -> float | None:
        """Estimated seconds of a training from scratch, or None before the first progress."""
        done = fraction_done(self.run) - self._begun
        return self.age / done if done > 0 else None

    @property
    def left(self) -> float | None:
        """Estimated seconds until the end, or None before the first progress."""
        return self.expected and self.expected * (1 - fraction_done(self.run))

    def new_validations(self) -> list[str]:
        """A line for each validation since the last call."""
        history = self.job.folder / HISTORY
        size = history.stat().st_size if history.exists() else -1
        if size == self._size:
            return []
        self._size, self.run = size, self.job.read()
        count = len(self.run.validations)
        lines = [validation_line(self.run, i) for i in range(self._printed, count)]
        self._printed = count
        return lines

    def end(self, code: int, screen: Screen) -> str:
        """Print how the training ended. Return why it failed, or an empty string."""
        run = self.job.read()
        if run.done:
            screen.line(f'{self.title}: {run.status} in {duration(self.age)}')
            return ''
        why = f'exit code {code}, {run.why}'
        if code == 0:
            why += ' (no record.json: does the config have the hook RunRecordHook?)'
        log = self.job.folder / OUTPUT
        screen.line(f'{self.title}: FAILED, {why}; the end of {log}:')
        for line in log.read_text('utf-8', 'replace').splitlines()[-_LOG_LINES:]:
            screen.line(f'    {line}')
        return why


def _time_left(
    running: list[_Child], waiting: list[Job], seconds: dict[str, list[float]], parallel: int
) -> str:
    """'; 3 min left', from the ``seconds`` of finished runs and the progress of running ones.

    '; more than 3 min left' if no run of some task has made progress yet.
    """
    known = {task: list(values) for task, values in seconds.items()}
    for child in running:
        if child.expected:
            known.setdefault(child.job.task, []).append(child.expected)
    mean = {task: fmean(values) for task, values in known.items()}
    left = sum(mean.get(job.task, 0.0) for job in waiting)
    for child in running:
        unknown = max(0.0, mean.get(child.job.task, 0.0) - child.age)
        left += unknown if child.left is None else child.left
    tasks = {job.task for job in [*waiting, *(child.job for child in running)]}
    complete = tasks <= mean.keys()
    if not complete and left == 0.0:
        return ''
    return f'; {"" if complete else "more than "}{duration(left / parallel)} left'


def _prepare(job: Job) -> str:
    """Make the folder of ``job`` ready for its training. Return how it starts, in words.

    A folder that the training cannot use is renamed. The trainings of a killed compare.py need a
    moment to end, so this waits a while for the folder's lock.

    Raises: filelock.Timeout if a training still writes to the folder.
    """
    if not job.folder.exists():
        return 'starting'
    lock = FileLock(job.folder / LOCK, timeout=_LOCK_SECONDS)
    with lock:
        run = job.read()
        if run.done:  # by the training for which this waited
            return f'reusing the {run.status} run in {job.folder}'
        if checkpoint := job.checkpoint():
            return f'going on from {checkpoint}'
        stamp = datetime.now(timezone.utc).strftime('%Y%m%dT%H%M%S%f')
        old = job.folder.with_name(f'{job.folder.name}.old-{stamp}')
        # Still locked, so that no training begins in the folder that moves. Windows would not
        # rename a folder with an open file, and for the same reason needs no lock.
        if os.name != 'posix':
            lock.release()
        return f'starting, old folder kept as {job.folder.rename(old).name}'


def _cores() -> int:
    if hasattr(os, 'sched_getaffinity'):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _stop(trainings: Sequence[subprocess.Popen]) -> None:
    """End the trainings with all processes they started. Kill what remains after a while."""
    processes = []
    for training in trainings:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(training.pid)
            processes += [process, *process.children(recursive=True)]
    for end in (psutil.Process.terminate, psutil.Process.kill):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                end(process)
        _, processes = psutil.wait_procs(processes, timeout=_GRACE_SECONDS)
