"""A Markdown page with one table row for each network, to which a stopped sweep adds the rest."""

from __future__ import annotations

import contextlib
import datetime
import gc
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

import torch

Row = list[str]


def fill(
    path: Path,
    columns: list[str],
    jobs: Iterable[tuple[str, Callable[[], Row | None]]],
    text: Callable[[list[Row], str], str],
    packages: Iterable[ModuleType],
) -> None:
    """Call every job that has no row in the page at ``path`` yet, and write its row.

    Args:
        path: the page. Its rows stay; delete the row of a network to run the network again.
        columns: titles of the columns; the first is the name of the network.
        jobs: name of a network, and a function that returns the other cells of its row. A network
            whose function returns None has no row.
        text: returns what stands above the table, from all rows and the origin: the day on which
            the page was begun, versions and conditions.
        packages: their versions must be those of the rows that the page has.

    Raises: ValueError if the page has rows of other versions.
    """
    origin = _origin(path, packages)
    rows = _read(path)
    for name, job in jobs:
        if name in rows:
            continue
        print(f'{name} ...', end=' ', flush=True)
        torch.manual_seed(0)
        with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere):
            cells = job()
        gc.collect()
        print(' | '.join(cells) if cells else 'no row', flush=True)
        if cells:
            rows[name] = [name, *(cell.replace('|', '/') for cell in cells)]
            _write(path, columns, list(rows.values()), text(list(rows.values()), origin))


def total(rows: list[Row], column: int) -> int:
    """The sum of a column. Rows of networks that failed have no number there."""
    return sum(int(row[column] or 0) for row in rows)


def sentence(error: Exception) -> str:
    """Type and message of an error, for a cell."""
    return f'{type(error).__name__}: {" ".join(str(error).split())[:200]}'


def _origin(path: Path, packages: Iterable[ModuleType]) -> str:
    found = [f'{package.__name__} {package.__version__}' for package in packages]
    conditions = f'({", ".join(found)}; CPU, random weights)'
    if not path.exists():
        return f'{datetime.date.today()} {conditions}'
    begun = re.search(rf'\d{{4}}-\d\d-\d\d {re.escape(conditions)}', path.read_text())
    if begun is None:
        raise ValueError(f'{path} has rows of other versions than {conditions}: delete it first')
    return begun[0]


def _read(path: Path) -> dict[str, Row]:
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines if line[:1] == '|']
    return {row[0]: row for row in rows[2:]}  # behind the titles and the rule


def _write(path: Path, columns: list[str], rows: list[Row], text: str) -> None:
    table = [columns, ['---'] * len(columns), *rows]
    lines = [f'| {" | ".join(row)} |' for row in table]
    part = path.with_name(path.name + '.part')
    part.write_text('\n'.join([text, *lines, '']))
    part.replace(path)  # a stopped run leaves a whole page
