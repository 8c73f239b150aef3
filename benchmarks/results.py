"""results.csv holds one measurement per row. Rows are only added, never changed."""

from __future__ import annotations

import csv
import io
import math
import os
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

RESULTS = Path(__file__).with_name('results.csv')
COLUMNS = (
    'case', 'system', 'mode', 'metric', 'unit', 'q50', 'q20', 'q80', 'dtype', 'layout', 'device',
    'threads', 'torch', 'triton', 'commit', 'utc',
)  # fmt: skip
_KEY = ('case', 'system', 'mode', 'metric', 'dtype', 'layout', 'device', 'threads')

Row = dict[str, str]


def quantiles(values: Sequence[float]) -> dict[str, str]:
    """Median, 20 % and 80 % quantile (linear interpolation) with six digits."""
    fifths = statistics.quantiles(values, n=5, method='inclusive') if len(values) > 1 else values
    named = {'q50': statistics.median(values), 'q20': fifths[0], 'q80': fifths[-1]}
    return {name: f'{value:.6g}' for name, value in named.items()}


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def append(path: Path, rows: Iterable[Row]) -> None:
    """Add whole rows in one write. A new file gets the header first.

    Raises:
        ValueError: the file has another header, or its last line is incomplete.
        OSError: the disk is full; the file is then restored.
    """
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, lineterminator='\n')
    with path.open('ab+') as target:
        target.seek(0)
        before = target.read()
        if not before:
            writer.writeheader()
        elif before.split(b'\n', 1)[0].decode() != ','.join(COLUMNS) or before[-1:] != b'\n':
            raise ValueError(
                f'{path} does not begin with the header, or ends in an incomplete line'
            )
        writer.writerows(rows)
        data = file.getvalue().encode()
        if os.write(target.fileno(), data) != len(data):
            os.truncate(target.fileno(), len(before))
            raise OSError(f'{path}: no space for {len(data)} bytes')


def read(path: Path) -> list[Row]:
    """All rows, or an empty list if the file does not exist."""
    if not path.exists():
        return []
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def latest(rows: Iterable[Row]) -> list[Row]:
    """The newest row of each measurement."""
    return list({tuple(row[name] for name in _KEY): row for row in rows}.values())
