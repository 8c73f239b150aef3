"""Progress of the trainings on the terminal or in a log file."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from ..records import last_logged_iteration
from .measures import VAL_LOSS, measure, quality_measures
from .runs import Run

SILENCE = 60.0  # seconds


class Screen:
    """Prints lines and, below them on a terminal, a progress bar for each running training.

    A file has no progress bars. There, a line with the progress of all trainings follows every
    ``SILENCE`` seconds without a line, so that a log shows that long epochs go on.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        stream = stream or sys.stdout
        self._console = Console(file=stream, markup=False, emoji=False, highlight=False)
        self.interactive = self._console.is_interactive
        self.bars = Progress(
            TextColumn('{task.description}', markup=False),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TextColumn('{task.fields[words]}', markup=False),
            console=self._console,
            transient=True,
            disable=not self.interactive,
        )
        self._tasks = {}
        self._printed = time.monotonic()

    @property
    def width(self) -> int | None:
        """Characters in a line of the terminal, or None for a file."""
        return self._console.width if self.interactive else None

    def line(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)
        self._printed = time.monotonic()

    def show(self, running: Mapping[str, Run]) -> None:
        """Show how far the running trainings are, by name."""
        if not self.interactive and running and time.monotonic() - self._printed > SILENCE:
            self.line(' | '.join(f'{k}: {live_words(run)}' for k, run in running.items()))
        for name in self._tasks.keys() - running.keys():
            self.bars.remove_task(self._tasks.pop(name))
        for name, run in running.items():
            if name not in self._tasks:
                self._tasks[name] = self.bars.add_task(name, total=1.0, words='')
            words = live_words(run)
            self.bars.update(self._tasks[name], completed=fraction_done(run), words=words)


def live_words(run: Run) -> str:
    """mmengine's newest training line: 'epoch 3, iteration 1200, loss 1.2034'."""
    newest = last_logged_iteration(run.folder)
    if not newest:
        return 'starting'
    words = [f'epoch {newest["epoch"]}'] if 'epoch' in newest else []
    words.append(f'iteration {newest["iter"]}')
    words += [f'loss {newest["loss"]:.4f}'] if 'loss' in newest else []
    return ', '.join(words)


def fraction_done(run: Run) -> float:
    """Fraction of the training that is done, 0 to 1, from its history and mmengine's log."""
    logged = last_logged_iteration(run.folder).get('iter', 0) / (run.max_iters or math.inf)
    return min(1.0, max(logged, run.last_x / (run.max_x or math.inf)))


def validation_line(run: Run, index: int) -> str:
    """Epoch or iteration, training loss and metrics of validation number ``index`` of ``run``."""
    x, metrics = run.validations[index]
    losses = [loss for at, loss in run.train if at <= x]
    words = [f'loss {losses[-1]:.4f}'] if losses else []
    for m in quality_measures([run]):
        if m.key in metrics:
            words.append(f'{m.label} {m.format(metrics[m.key])}')
    if VAL_LOSS in metrics:
        words.append(f'{measure(VAL_LOSS).label} {metrics[VAL_LOSS]:.3f}')
    return f'{run.position(x)}: ' + ', '.join(words)


def duration(seconds: float) -> str:
    """'42 s', '3 min', '2 h 05 min'."""
    if seconds < 100:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    return f'{minutes} min' if minutes < 100 else f'{minutes // 60} h {minutes % 60:02} min'
