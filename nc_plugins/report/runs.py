"""One run folder read into one object. Nothing here trusts a file to be whole."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

FINISHED, DIVERGED, MISSING = 'finished', 'diverged', 'missing'
_NOT_METRICS = {'step', 'time', 'data_time', 'memory', 'epoch', 'iter'}


@dataclass
class Run:
    """One training: a config and a seed.

    ``train`` holds (x, loss) and ``validations`` (x, {metric: value}) in the order they were
    written; x counts epochs if ``by_epoch``, else iterations. ``status`` is 'finished'; 'diverged'
    (finished, but its final training loss or last validation is not finite); or 'missing', with
    ``why`` in words. ``record`` is record.json, empty for a missing run. Runs of one ``task`` are
    compared with each other.
    """

    config: str
    seed: int
    folder: Path
    status: str = MISSING
    why: str = 'never started'
    by_epoch: bool = True
    max_x: int | None = None
    train: list[tuple[float, float]] = field(default_factory=list)
    validations: list[tuple[float, dict[str, float]]] = field(default_factory=list)
    record: dict = field(default_factory=dict)
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
        """``key`` in the last validation; None if that had no such metric."""
        return self.validations[-1][1].get(key) if self.validations else None

    def best(self, key: str, lower_is_better: bool) -> float | None:
        values = [value for _, value in self.series(key) if not math.isnan(value)]
        return (min if lower_is_better else max)(values) if values else None

    @property
    def final_loss(self) -> float | None:
        """Training loss of the last epoch (iteration based: since the last validation but one)."""
        return self.train[-1][1] if self.train else None


def read_run(config: str, seed: int, folder: Path, fingerprint: str | None = None) -> Run:
    """Read a run folder, or one that is not there.

    With ``fingerprint``, a finished run of another fingerprint is missing: it is somebody else's.
    """
    run = Run(config, seed, folder)
    if not folder.is_dir():
        return run
    record = read_json(folder / 'record.json')
    finished = record.get('finished') is True
    if finished and fingerprint is not None and record.get('fingerprint') != fingerprint:
        run.why = 'the finished run in its folder has another config or options'
        return run
    _read_curves(run)
    if not finished:
        seen = f', last seen at {progress_words(run, last_x(run))}' if last_x(run) else ''
        run.why = f'unfinished{seen}'
        return run
    run.record, run.why = record, ''
    last = run.validations[-1][1].values() if run.validations else ()
    final = [] if run.final_loss is None else [run.final_loss]
    diverged = not all(math.isfinite(value) for value in [*final, *last])
    run.status = DIVERGED if diverged else FINISHED
    return run


def last_x(run: Run) -> float:
    """How far the curves of ``run`` go, in epochs or iterations; 0 if there are none."""
    return max([x for x, _ in run.train[-1:] + run.validations[-1:]], default=0)


def progress_words(run: Run, x: float) -> str:
    """'epoch 3/10' or 'iteration 200/1000'."""
    return f'{"epoch" if run.by_epoch else "iteration"} {x:g}/{run.max_x or "?"}'


def read_json(path: Path) -> dict:
    """The object in ``path``; empty if there is no such file or it holds no whole object."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def read_lines(path: Path, tail_bytes: int | None = None) -> Iterator[dict]:
    """The whole JSON objects of a file with one a line, or of its last ``tail_bytes`` bytes.

    A line still being written, or cut by the tail, is skipped; a file that is not there is empty.
    """
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


def newest_scalars(folder: Path) -> Path | None:
    """mmengine's scalars.json of the latest start in ``folder`` (its time stamps sort)."""
    return max(folder.glob('*/vis_data/scalars.json'), default=None)


def newest_pictures(folder: Path, at_most: int = 2) -> list[Path]:
    """The last picture of each name that validations drew; of many names the first ``at_most``.

    <name>_<step>.png in samples/, and where mmengine's visualizer draws in its latest start.
    """
    newest: dict[str, tuple[int, Path]] = {}
    start = max(folder.glob('*/vis_data/vis_image'), default=folder / 'samples')
    for path in sorted([*folder.glob('samples/*.png'), *start.glob('*.png')]):
        name, _, step = path.stem.rpartition('_')
        if step.isdecimal() and int(step) >= newest.get(name, (0, path))[0]:
            newest[name] = (int(step), path)
    return [path for _, path in list(newest.values())[:at_most]]


def _read_curves(run: Run) -> None:
    events = list(read_lines(run.folder / 'history.jsonl'))
    if events:
        _from_history(run, events)
    elif scalars := newest_scalars(run.folder):
        _from_scalars(run, list(read_lines(scalars)))


def _from_history(run: Run, events: list[dict]) -> None:
    for event in events:
        kind = event.get('event')
        if kind == 'start':
            run.by_epoch = bool(event.get('by_epoch', True))
            run.max_x = event.get('max_epochs') if run.by_epoch else event.get('max_iters')
            continue
        x = event.get('epoch') if run.by_epoch else event.get('iter')
        if kind == 'train' and (loss := _total_loss(event.get('losses', {}))) is not None:
            run.train.append((x, loss))
        elif kind == 'val':
            run.validations.append((x, event.get('metrics', {})))


def _total_loss(losses: dict) -> float | None:
    """mmengine's 'loss'; models without one (several optimizers) give the sum of their parts."""
    return losses.get('loss', sum(losses.values()) if losses else None)


def _from_scalars(run: Run, lines: list[dict]) -> None:
    """What mmengine alone leaves: training losses smoothed over ten iterations, at intervals.

    A line with 'iter' is a training line, any other a validation, whose 'step' is the epoch in
    epoch based training and the iteration otherwise.
    """
    trained = [line for line in lines if 'iter' in line and 'loss' in line]
    run.by_epoch = any('epoch' in line for line in trained) or not trained
    by_epoch: dict[int, list[float]] = {}
    for line in trained:
        if run.by_epoch:
            by_epoch.setdefault(line['epoch'], []).append(line['loss'])
        else:
            run.train.append((line['iter'], line['loss']))
    run.train += [(epoch, sum(losses) / len(losses)) for epoch, losses in by_epoch.items()]
    for line in lines:
        if 'iter' not in line and 'step' in line:
            metrics = {
                key: value
                for key, value in line.items()
                if key not in _NOT_METRICS and isinstance(value, (int, float))
            }
            if metrics:
                run.validations.append((line['step'], metrics))
