"""The files of a run folder, which a training writes and the report reads.

A run folder is the ``work_dir`` of one training. It holds

- ``history.jsonl``: one event a line, appended during the training. A ``Start`` comes first, then
  a ``TrainingLoss`` for each epoch and a ``Validation`` for each validation.
- ``record.json``: a ``Record``. It exists only if the training has finished.
- ``samples/<name>_<step>.png``: sample images of an image translation.
- ``.lock``: a file that a training locks as long as it writes to the folder.
- ``output.log``: the output of a training that tools/compare.py started.
- ``<start time>/vis_data``: mmengine's own ``scalars.json`` and ``vis_image/<name>_<step>.png``.

This module uses the standard library only. Readers skip files and lines that are incomplete,
because they may read a folder while a training writes to it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

RECORD, HISTORY, OUTPUT, SAMPLES = 'record.json', 'history.jsonl', 'output.log', 'samples'
LOCK = '.lock'
# In scalars.json but not metrics.
_TIMES_AND_STEPS = {'step', 'time', 'data_time', 'memory', 'epoch', 'iter'}
_TAIL_BYTES = 8192


@dataclass
class Record:
    """Results and conditions of a finished training. None means unknown.

    If the training was resumed, speed, memory and load are those of the last process, and seconds
    are summed over all of them, without the work that was lost.
    """

    finished: bool = True  # trained to the end and validated
    config: str | None = None  # path of the config file
    seed: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)  # of the last validation
    metrics_min: dict[str, float] = field(default_factory=dict)  # over all validations, without NaN
    metrics_max: dict[str, float] = field(default_factory=dict)
    census: dict[str, int] | None = None  # number of layers of each kind
    # Training images over training time, summed over ranks. Includes data loading. Excludes
    # validation, checkpoints written between epochs and the warm-up.
    images_per_second: float | None = None
    peak_memory_mb: float | None = None  # MiB
    # 'cuda allocated': memory of tensors during training. 'process peak RSS': largest resident size
    # of the process, Python and libraries included.
    memory_kind: str | None = None
    train_seconds: float | None = None  # in training iterations
    total_seconds: float | None = None  # from the start of the training to its end
    max_epochs: int | None = None
    max_iters: int | None = None
    commit: str | None = None  # of nc_plugins, with '+dirty' after uncommitted changes
    utc_start: str | None = None
    utc_end: str | None = None
    torch: str | None = None
    nc_plugins: str | None = None
    device: str | None = None  # name of the GPU, or 'CPU' and the name of the processor
    world_size: int | None = None  # processes
    threads: int | None = None  # CPU threads in each process
    cores: int | None = None  # of the machine
    # Load average of the machine over the last minute. More than ``cores`` means that other
    # programs slowed the training down.
    load: float | None = None
    fingerprint: str | None = None  # of config and options: tools/compare.py identifies runs by it


@dataclass
class Start:
    """The plan of a training. ``by_epoch`` is False if the training counts iterations."""

    by_epoch: bool = True
    max_epochs: int | None = None
    max_iters: int | None = None
    utc: str | None = None


@dataclass
class TrainingLoss:
    """Mean training losses since the event before. ``epoch`` is None without epochs."""

    epoch: int | None = None
    iter: int | None = None
    losses: dict[str, float] = field(default_factory=dict)


@dataclass
class Validation:
    """Metrics of one validation. ``epoch`` is None without epochs."""

    epoch: int | None = None
    iter: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    per_class: dict[str, dict[str, float]] = field(default_factory=dict)  # metric: {class: value}


Event = Start | TrainingLoss | Validation
_EVENTS = {'start': Start, 'train': TrainingLoss, 'val': Validation}
_KINDS = {cls: kind for kind, cls in _EVENTS.items()}


def write_record(folder: Path, record: Record) -> None:
    text = json.dumps(asdict(record), indent=1, default=str)
    write_atomically(folder / RECORD, f'{text}\n'.encode())


def read_record(folder: Path) -> Record | None:
    """The record of a finished training, else None."""
    try:
        values = json.loads((folder / RECORD).read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(values, dict) or values.get('finished') is not True:
        return None
    return _from_dict(Record, values)


def write_history(folder: Path, events: Iterable[Event]) -> None:
    """Replace the history of ``folder`` by ``events``."""
    write_atomically(folder / HISTORY, ''.join(map(_line, events)).encode())


def append_event(folder: Path, event: Event) -> None:
    with (folder / HISTORY).open('a') as file:
        file.write(_line(event))


def read_history(folder: Path) -> list[Event]:
    """All events of ``history.jsonl``; an empty list if there is no such file."""
    lines = _read_lines(folder / HISTORY)
    return [event_from_dict(x) for x in lines if x.get('event') in _EVENTS]


def event_to_dict(event: Event) -> dict:
    return {'event': _KINDS[type(event)], **asdict(event)}


def event_from_dict(values: dict) -> Event:
    return _from_dict(_EVENTS[values['event']], values)


def read_scalars(folder: Path) -> list[Event]:
    """The same events from mmengine's ``scalars.json``, for a training without a history.

    Less exact than a history: mmengine writes the mean of the last ten training losses, at
    intervals. An epoch's loss is the mean of the values in that epoch.
    """
    lines = list(_read_lines(_newest_scalars(folder)))
    # A line with 'iter' belongs to the training. Any other belongs to a validation, and its 'step'
    # is the epoch, or the iteration if the training counts iterations.
    trained = [line for line in lines if 'iter' in line and 'loss' in line]
    by_epoch = any('epoch' in line for line in trained) or not trained
    losses: dict[int, list[float]] = {}
    for line in trained:
        losses.setdefault(line['epoch' if by_epoch else 'iter'], []).append(line['loss'])
    events: list[Event] = [Start(by_epoch)] if lines else []
    for step, values in losses.items():
        where = _position(step, by_epoch)
        events.append(TrainingLoss(**where, losses={'loss': sum(values) / len(values)}))
    for line in lines:
        if 'iter' in line or 'step' not in line:
            continue
        metrics = {
            key: value
            for key, value in line.items()
            if key not in _TIMES_AND_STEPS and isinstance(value, (int, float))
        }
        if metrics:
            events.append(Validation(**_position(line['step'], by_epoch), metrics=metrics))
    return events


def last_logged_iteration(folder: Path) -> dict:
    """mmengine's newest training line, with 'step', 'iter', 'epoch' and 'loss' where it has them.

    An empty dict before the first line.
    """
    lines = _read_lines(_newest_scalars(folder), tail_bytes=_TAIL_BYTES)
    return next((line for line in reversed(list(lines)) if 'iter' in line), {})


def newest_pictures(folder: Path, limit: int = 2) -> list[Path]:
    """The last picture of each name that validations drew, for the first ``limit`` names."""
    newest: dict[str, tuple[int, Path]] = {}
    start = max(folder.glob('*/vis_data/vis_image'), default=folder / SAMPLES)
    for path in sorted([*(folder / SAMPLES).glob('*.png'), *start.glob('*.png')]):
        name, _, step = path.stem.rpartition('_')
        if step.isdecimal() and int(step) >= newest.get(name, (0, path))[0]:
            newest[name] = (int(step), path)
    return [path for _, path in list(newest.values())[:limit]]


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file in one step: readers see the old content or the new one, also after a crash.

    A write that fails or is interrupted leaves the old file and deletes the temporary one.
    """
    partial = path.with_name(path.name + '.partial')
    try:
        with partial.open('wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if os.name == 'posix':  # the new name of the file must reach the disk, too
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _from_dict(cls: type, values: dict):
    """Build a dataclass, without the keys that it does not have."""
    names = {f.name for f in fields(cls)}
    return cls(**{key: value for key, value in values.items() if key in names})


def _line(event: Event) -> str:
    return json.dumps(event_to_dict(event)) + '\n'


def _position(step: int, by_epoch: bool) -> dict[str, int]:
    return {'epoch' if by_epoch else 'iter': step}


def _newest_scalars(folder: Path) -> Path:
    """``scalars.json`` of the latest start (the time stamps sort), or a path that is not there."""
    return max(folder.glob('*/vis_data/scalars.json'), default=folder / 'scalars.json')


def _read_lines(path: Path, tail_bytes: int | None = None) -> Iterator[dict]:
    """The complete JSON objects in a file with one object a line, or in its last ``tail_bytes``."""
    try:
        with path.open('rb') as file:
            if tail_bytes is not None:
                file.seek(max(0, path.stat().st_size - tail_bytes))
            text = file.read().decode(errors='replace')
    except OSError:
        return
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value
