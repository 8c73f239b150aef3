"""Trainings as child processes: which must run, running them, stopping them."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from .progress import Screen, duration, fraction_done, live_words, validation_line
from .runs import Run, read_run

LOG = 'output.log'
_LOG_LINES = 15
_POLL_SECONDS = 0.3
_GRACE_SECONDS = 10.0


@dataclass
class Job:
    """One training to have: where it writes, what it is recognised by, the command that does it.

    ``task`` names what it is compared with: jobs of the same task.
    """

    config: str
    seed: int
    folder: Path
    fingerprint: str
    command: list[str]
    task: str = ''

    @property
    def name(self) -> str:
        return f'{Path(self.config).stem} seed {self.seed}'

    def read(self) -> Run:
        run = read_run(self.config, self.seed, self.folder, self.fingerprint)
        run.command = shlex.join(['python', *self.command[1:]])
        run.task = self.task
        return run


def run_jobs(jobs: Sequence[Job], parallel: int, screen: Screen) -> dict[str, str]:
    """Run what is not finished, ``parallel`` at once; return {job name: why} for what failed.

    A finished run whose fingerprint fits is reused. Whatever else lies in a run's folder is set
    aside under a name with the time in it, never deleted, and the training starts from scratch.
    Any exception, KeyboardInterrupt included, ends all children before it goes on.
    """
    waiting: deque[tuple[str, Job]] = deque()
    for number, job in enumerate(jobs, 1):
        run, head = job.read(), f'[{number}/{len(jobs)}] {job.name}'
        if run.done:
            screen.line(f'{head}: reusing the {run.status} run in {job.folder}')
        else:
            screen.line(f'{head}: to run ({run.why})')
            waiting.append((head, job))

    running: list[_Child] = []
    failed: dict[str, str] = {}
    lengths: dict[str, list[float]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                head, job = waiting.popleft()
                aside = _set_aside(job.folder)
                screen.line(
                    f'{head}: starting' + (f', old folder kept as {aside}' if aside else '')
                )
                running.append(_Child(head, job, parallel))
            time.sleep(_POLL_SECONDS)
            for child in list(running):
                # Asked before the files are read, so that the last lines are not missed.
                code = child.process.poll()
                for line in child.news():
                    left = _time_left(running, [job for _, job in waiting], lengths, parallel)
                    screen.line(f'{child.head}, {line}{left}')
                if code is None:
                    continue
                running.remove(child)
                why = child.end(code, screen)
                if why:
                    failed[child.job.name] = why
                else:
                    lengths.setdefault(child.job.task, []).append(child.age)
            if running and screen.live_is_due():
                screen.live(' | '.join(f'{c.head}: {live_words(c.job.folder)}' for c in running))
    finally:
        _stop([child.process for child in running])
    return failed


class _Child:
    """A training that was started, and how much of its history has been told."""

    def __init__(self, head: str, job: Job, parallel: int) -> None:
        self.head, self.job = head, job
        self.started = time.monotonic()
        self.expected: float | None = None
        self._told = 0
        self._size = -1
        job.folder.mkdir(parents=True)
        env = {**os.environ, 'PYTHONUNBUFFERED': '1'}
        if parallel > 1:
            env['OMP_NUM_THREADS'] = str(max(1, _cores() // parallel))
        with (job.folder / LOG).open('wb') as log:
            # A session of its own: Ctrl-C then reaches this program alone, which ends the whole
            # group, data loading workers included.
            self.process = subprocess.Popen(
                job.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
            )

    @property
    def age(self) -> float:
        return time.monotonic() - self.started

    def news(self) -> list[str]:
        """One line for each validation since the last call."""
        history = self.job.folder / 'history.jsonl'
        size = history.stat().st_size if history.exists() else -1
        if size == self._size:
            return []
        self._size = size
        run = self.job.read()
        if done := fraction_done(run):
            self.expected = self.age / done
        lines = [validation_line(run, i) for i in range(self._told, len(run.validations))]
        self._told = len(run.validations)
        return lines

    def end(self, code: int, screen: Screen) -> str:
        """Say how the training ended; return why it failed, or an empty string."""
        run = self.job.read()
        if run.done:
            screen.line(f'{self.head}: {run.status} in {duration(self.age)}')
            return ''
        why = f'exit code {code}, {run.why}'
        if code == 0:
            why += ' (no record.json: has the config the hook RunRecordHook?)'
        log = self.job.folder / LOG
        screen.line(f'{self.head}: FAILED, {why}; the end of {log}:')
        for line in log.read_text(errors='replace').splitlines()[-_LOG_LINES:]:
            screen.line(f'    {line}')
        return why


def _time_left(
    running: list[_Child], waiting: list[Job], lengths: dict[str, list[float]], parallel: int
) -> str:
    """'; 3 min left', from the lengths of finished runs and the progress of running ones.

    A task of which no run has got anywhere yet has no known length: 'more than 3 min left'.
    """
    known = {task: list(values) for task, values in lengths.items()}
    for child in running:
        if child.expected:
            known.setdefault(child.job.task, []).append(child.expected)
    usual = {task: sum(values) / len(values) for task, values in known.items()}
    tasks = [child.job.task for child in running] + [job.task for job in waiting]
    seconds = sum(usual.get(job.task, 0.0) for job in waiting)
    for child in running:
        expected = child.expected or usual.get(child.job.task, 0.0)
        seconds += max(0.0, expected - child.age)
    more = 'more than ' if any(task not in usual for task in tasks) else ''
    if more and seconds == 0.0:
        return ''
    return f'; {more}{duration(seconds / parallel)} left'


def _set_aside(folder: Path) -> str:
    if not folder.exists():
        return ''
    stamp = datetime.now(timezone.utc).strftime('%Y%m%dT%H%M%S%f')
    aside = folder.with_name(f'{folder.name}.old-{stamp}')
    folder.rename(aside)
    return aside.name


def _cores() -> int:
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _stop(processes: Sequence[subprocess.Popen]) -> None:
    """End whole process groups: politely, then, after a grace period, not."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, how)
        deadline = time.monotonic() + _GRACE_SECONDS
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
