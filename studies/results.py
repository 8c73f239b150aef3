"""The results of the trainings as CSV files, which the repository keeps."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from nc_plugins.records import write_atomically
from nc_plugins.report import Run
from nc_plugins.report.measures import VAL_LOSS

from .worklist import Trial

FOLDER = Path(__file__).parents[1] / 'docs/results/micro-batch'
RUNS, EPOCHS = 'runs.csv', 'epochs.csv'
TOP1 = 'accuracy/top1'


@dataclass
class Row:
    """The result of a training, and its conditions.

    Attributes:
        name: identifies the training.
        status: 'finished', or 'diverged' if the loss is not finite.
        top1: accuracy on ``split`` after the last epoch, in percent.
        val_loss: cross entropy on ``split`` after the last epoch, in nats.
        train_loss: mean of the last epoch.
        seconds: from the start of the training to its end.
        memory: peak of the process, in MiB.
    """

    name: str
    config: str
    batch: int
    rate: float
    seed: int
    split: str
    status: str
    top1: float
    val_loss: float
    train_loss: float
    images_per_second: float
    seconds: float
    memory: float
    commit: str
    utc_end: str
    device: str
    threads: int
    load: float
    torch: str


def row_of(trial: Trial, run: Run) -> Row:
    record = run.record
    return Row(
        trial.name,
        trial.setting.config,
        trial.setting.batch,
        trial.rate,
        trial.seed,
        trial.split,
        run.status,
        round(run.last(TOP1), 3),
        round(run.last(VAL_LOSS), 4),
        round(run.final_loss, 4),
        round(record.images_per_second, 1),
        round(record.total_seconds),
        round(record.peak_memory_mb),
        record.commit,
        record.utc_end,
        record.device,
        record.threads,
        record.load,
        record.torch,
    )


def epochs_of(trial: Trial, run: Run) -> list[dict]:
    """A line for each epoch. Metrics are empty after epochs without a validation."""
    metrics = dict(run.validations)
    return [
        {
            'name': trial.name,
            'epoch': int(epoch),
            'train_loss': round(loss, 4),
            'top1': _rounded(metrics.get(epoch, {}).get(TOP1), 3),
            'val_loss': _rounded(metrics.get(epoch, {}).get(VAL_LOSS), 4),
        }
        for epoch, loss in run.train
    ]


def _rounded(value: float | None, digits: int) -> float | str:
    return '' if value is None else round(value, digits)


def read_rows(folder: Path = FOLDER) -> dict[str, Row]:
    """The finished trainings by name."""
    types = {field.name: {'int': int, 'float': float}.get(field.type, str) for field in fields(Row)}
    rows = {}
    for line in read_lines(folder / RUNS):
        rows[line['name']] = Row(**{key: types[key](value) for key, value in line.items()})
    return rows


def write_rows(rows: Iterable[Row], epochs: Iterable[dict], folder: Path = FOLDER) -> None:
    """Add trainings to the files, or replace those of the same name."""
    folder.mkdir(parents=True, exist_ok=True)
    new = {row.name: asdict(row) for row in rows}
    kept = {line['name']: line for line in read_lines(folder / RUNS)}
    write_lines(folder / RUNS, [*(kept | new).values()])
    epochs = list(epochs)
    kept = [line for line in read_lines(folder / EPOCHS) if line['name'] not in new]
    write_lines(folder / EPOCHS, kept + epochs)


def read_lines(path: Path) -> list[dict]:
    """The lines of a CSV file by column; none if there is no such file."""
    if not path.exists():
        return []
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def write_lines(path: Path, lines: list[dict]) -> None:
    """Replace a CSV file. All lines have the columns of the first one."""
    if lines:
        text = io.StringIO()
        writer = csv.DictWriter(text, lines[0], lineterminator='\n')
        writer.writeheader()
        writer.writerows(lines)
        write_atomically(path, text.getvalue().encode())
