"""One run folder as one object."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from ..records import Record, Start, TrainingLoss, read_history, read_record, read_scalars

FINISHED, DIVERGED, MISSING = 'finished', 'diverged', 'missing'


@dataclass
class Run:
    """One training: a config with a seed.

    Attributes:
        config, seed, folder: the config file, the random seed and the run folder.
        status: 'finished'; 'diverged' if the training finished but its final training loss or its
            last validation is not finite; otherwise 'missing'.
        why: the reason for a missing run, in words.
        by_epoch: True if ``x`` below counts epochs, False if it counts iterations.
        max_x: planned epochs or iterations.
        max_iters: planned iterations.
        train: (x, training loss) in the order of time.
        validations: (x, {metric: value}) in the order of time.
        per_class: {metric: {class: value}} of the last validation.
        record: contents of record.json; empty for a missing run.
        command: shell command that repeats the training.
        task: runs with the same task are compared with each other.
    """

    config: str
    seed: int
    folder: Path
    status: str = MISSING
    why: str = 'never started'
    by_epoch: bool = True
    max_x: int | None = None
    max_iters: int | None = None
    train: list[tuple[float, float]] = field(default_factory=list)
    validations: list[tuple[float, dict[str, float]]] = field(default_factory=list)
    per_class: dict[str, dict[str, float]] = field(default_factory=dict)
    record: Record = field(default_factory=Record)
    command: str = ''
    task: str = ''

    @property
    def name(self) -> str:
        return Path(self.config).stem

    @property
    def done(self) -> bool:
        return self.status != MISSING

    def series(self, key: str) -> list[tuple[float, float]]:
        """(x, value) of the validation metric ``key``."""
        return [(x, metrics[key]) for x, metrics in self.validations if key in metrics]

    def last(self, key: str) -> float | None:
        """The metric ``key`` of the last validation, or None if it has no such metric."""
        return self.validations[-1][1].get(key) if self.validations else None

    def best(self, key: str, lower_is_better: bool) -> float | None:
        """The best value of ``key`` over all validations, NaN ignored."""
        values = [value for _, value in self.series(key) if not math.isnan(value)]
        return (min if lower_is_better else max)(values) if values else None

    @property
    def final_loss(self) -> float | None:
        """Mean training loss of the last epoch (without epochs: since the validation before)."""
        return self.train[-1][1] if self.train else None

    @property
    def last_x(self) -> float:
        """Epochs or iterations that the run has recorded; 0 if there are none."""
        return max([x for x, _ in self.train[-1:] + self.validations[-1:]], default=0)

    def position(self, x: float) -> str:
        """'epoch 3/10' or 'iteration 200/1000'."""
        return f'{"epoch" if self.by_epoch else "iteration"} {x:g}/{self.max_x or "?"}'


def read_run(config: str, seed: int, folder: Path, fingerprint: str | None = None) -> Run:
    """Read a run folder. A folder that does not exist gives a missing run.

    A finished run whose fingerprint is not ``fingerprint`` counts as missing, because it belongs to
    another config or other options. None accepts every fingerprint.
    """
    run = Run(config, seed, folder)
    if not folder.is_dir():
        return run
    record = read_record(folder)
    if record and fingerprint is not None and record.fingerprint != fingerprint:
        run.why = 'the finished run in its folder has another config or options'
        return run
    _add_events(run)
    if record is None:
        run.why = 'unfinished'
        if run.last_x:
            run.why += f', last seen at {run.position(run.last_x)}'
        return run
    run.record, run.why = record, ''
    last = run.validations[-1][1].values() if run.validations else ()
    final = [] if run.final_loss is None else [run.final_loss]
    diverged = not all(map(math.isfinite, [*final, *last]))
    run.status = DIVERGED if diverged else FINISHED
    return run


def _add_events(run: Run) -> None:
    for event in read_history(run.folder) or read_scalars(run.folder):
        if isinstance(event, Start):
            run.by_epoch, run.max_iters = event.by_epoch, event.max_iters
            run.max_x = event.max_epochs if event.by_epoch else event.max_iters
            continue
        x = event.epoch if run.by_epoch else event.iter
        if not isinstance(event, TrainingLoss):
            run.validations.append((x, event.metrics))
            run.per_class = event.per_class
        elif event.losses:
            # A model with several optimizers has no 'loss': take the sum of its losses.
            run.train.append((x, event.losses.get('loss', sum(event.losses.values()))))
