"""The resolved config that mmengine saves in a run folder, and what differs between two of them.

A saved config in Python is read as data and never run. It consists of assignments whose values are
literals and calls of ``dict``.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Iterator
from pathlib import Path

NOT_SET = '(not set)'
# They name the run or say where it started.
_OF_THE_RUN = {'work_dir', 'run_fingerprint', 'resume', 'randomness.seed'}
_NAMES = {'inf': math.inf, 'nan': math.nan}


def has_fingerprint(folder: Path, config: str, fingerprint: str) -> bool:
    """True if the training in ``folder`` began with this config file and this fingerprint."""
    try:
        # In the text, because the file can also be YAML.
        return fingerprint in (folder / Path(config).name).read_text('utf-8')
    except (OSError, ValueError):
        return False


def read_saved_config(folder: Path, config: str) -> dict | None:
    """The config that a training of the file ``config`` saved in ``folder``.

    None if there is none, or if it is not Python literals or JSON.
    """
    path = folder / Path(config).name
    try:
        text = path.read_text('utf-8')
        if path.suffix != '.py':
            values = json.loads(text)
            return values if isinstance(values, dict) else None
        lines = ast.parse(text).body
        return {line.targets[0].id: _value(line.value) for line in lines}
    except (OSError, ValueError, SyntaxError, AttributeError, TypeError, RecursionError):
        return None


def config_diff(baseline: dict, other: dict) -> list[tuple[str, str, str]]:
    """(key, value in ``baseline``, value in ``other``) for each value that differs.

    Keys are dotted paths. What names the run, such as ``work_dir``, is left out.
    """
    here, there = dict(_leaves(baseline)), dict(_leaves(other))
    rows = []
    for key in dict.fromkeys([*here, *there]):
        if key in _OF_THE_RUN:
            continue
        # As text, because NaN differs from itself.
        values = [_text(leaves, key) for leaves in (here, there)]
        if values[0] != values[1]:
            rows.append((key, *values))
    return sorted(rows)


def _text(leaves: dict, key: str) -> str:
    return repr(leaves[key]) if key in leaves else NOT_SET


def _leaves(value, path: str = '') -> Iterator[tuple[str, object]]:
    if isinstance(value, dict) and value:
        if not path and value.get('resume'):  # load_from is then a checkpoint of the run itself
            value = {key: item for key, item in value.items() if key != 'load_from'}
        for key, item in value.items():
            yield from _leaves(item, f'{path}.{key}' if path else str(key))
    elif isinstance(value, (list, tuple)) and any(isinstance(item, dict) for item in value):
        for i, item in enumerate(value):
            yield from _leaves(item, f'{path}[{i}]')
    else:
        yield path, list(value) if isinstance(value, tuple) else value


def _value(node: ast.expr):
    """``node`` as data. Raises ValueError for anything but literals and ``dict``."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict':
        values = {}
        for argument in node.args:
            values.update(_value(argument))
        return values | {keyword.arg: _value(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {ast.literal_eval(key): _value(item) for key, item in pairs}
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.Name) and node.id in _NAMES:
        return _NAMES[node.id]
    return ast.literal_eval(node)
