"""What a waiting person sees: a line for each validation, and a live one on a terminal."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import TextIO

from .measures import VAL_LOSS, measure, quality_measures
from .runs import Run, last_x, newest_scalars, progress_words, read_lines

HEARTBEAT = 60.0
_TAIL_BYTES = 8192


class Screen:
    """Lines that stay, and on a terminal one live line that is overwritten.

    Where there is no terminal the live text becomes a line once nothing was said for HEARTBEAT
    seconds, so that a log of hour-long epochs still shows life.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        self.tty = self.stream.isatty()
        self._spoke = time.monotonic()

    def line(self, text: str) -> None:
        self.stream.write(('\r\x1b[2K' if self.tty else '') + text + '\n')
        self.stream.flush()
        self._spoke = time.monotonic()

    @property
    def width(self) -> int | None:
        """Characters that fit in a line; None where there is no terminal."""
        return shutil.get_terminal_size().columns if self.tty else None

    def live_is_due(self) -> bool:
        return self.tty or time.monotonic() - self._spoke > HEARTBEAT

    def live(self, text: str) -> None:
        if not self.tty:
            self.line(text)
            return
        self.stream.write('\r\x1b[2K' + text[: self.width - 1])
        self.stream.flush()


def validation_line(run: Run, index: int) -> str:
    """What is known at the ``index``-th validation of ``run``: place, training loss, metrics."""
    x, metrics = run.validations[index]
    losses = [loss for at, loss in run.train if at <= x]
    words = [f'{progress_words(run, x)}:']
    if losses:
        words.append(f'loss {losses[-1]:.4f}')
    for m in quality_measures([run]):
        if m.key in metrics:
            words.append(f'{m.label} {m.show(metrics[m.key])}')
    if VAL_LOSS in metrics:
        words.append(f'{measure(VAL_LOSS).label} {metrics[VAL_LOSS]:.3f}')
    return words[0] + ' ' + ', '.join(words[1:])


def live_words(folder: Path) -> str:
    """The newest training line mmengine logged: 'epoch 3, iteration 1200, loss 1.2034'."""
    scalars = newest_scalars(folder)
    if scalars is None:
        return 'starting'
    newest = {}
    for line in read_lines(scalars, tail_bytes=_TAIL_BYTES):
        newest = line if 'iter' in line else newest
    words = [f'epoch {newest["epoch"]}'] if 'epoch' in newest else []
    words += [f'iteration {newest["iter"]}'] if newest else ['starting']
    words += [f'loss {newest["loss"]:.4f}'] if 'loss' in newest else []
    return ', '.join(words)


def fraction_done(run: Run) -> float:
    """Share of the training that the curves show as done, 0 to 1."""
    return min(1.0, last_x(run) / run.max_x) if run.max_x else 0.0


def duration(seconds: float) -> str:
    """'42 s', '3 min', '2 h 05 min'."""
    if seconds < 100:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    return f'{minutes} min' if minutes < 100 else f'{minutes // 60} h {minutes % 60:02} min'
