"""Random mistakes in a config: one edit at a time, the same for the same seed."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import NamedTuple

# Keys of which a huge value is right but trains for hours.
LENGTHS = ('max_epochs', 'max_iters', 'end')


class Edit(NamedTuple):
    """What was done to a config, in words, and the config after it."""

    words: str
    config: dict


def edits(config: dict, random_: random.Random) -> Iterator[Edit]:
    """Yield edits of ``config`` without end, each of one random key at any depth."""
    places = list(_places(config))
    while True:
        edited = copy.deepcopy(config)
        path = random_.choice(places)
        parent = edited
        for key in path[:-1]:
            parent = parent[key]
        words = random_.choice(EDITS)(parent, path[-1], random_, edited)
        if words is not None and edited != config:
            yield Edit(f'{".".join(map(str, path))}: {words}', edited)


def _places(value, path: tuple = ()) -> Iterator[tuple]:
    if path:
        yield path
    if isinstance(value, dict):
        items = value.items()
    else:
        items = enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, item in items:
        yield from _places(item, (*path, key))


def _delete(parent, key, random_, config) -> str | None:
    if isinstance(parent, tuple):
        return None
    del parent[key]
    return 'deleted'


def _set(parent, key, value) -> str | None:
    if isinstance(parent, tuple):
        return None
    parent[key] = value
    return f'set to {str(value)[:60]!r}'


def _wrong_type(parent, key, random_, config) -> str | None:
    value = parent[key]
    others = [None, 'abc', '', 7, -1.5, True, [], {}, [1, 2], {'a': 1}, ['abc'], str(value)[:40]]
    others += [list(value)] if isinstance(value, dict) else [[value], {'type': value}]
    return _set(parent, key, random_.choice(others))


def _number(parent, key, random_, config) -> str | None:
    value = parent[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    huge = [] if key in LENGTHS else [10**5, 10**9, 1e30]
    return _set(parent, key, random_.choice([0, -1, -value, value + 0.5, float('nan'), *huge]))


def _type_name(parent, key, random_, config) -> str | None:
    if not isinstance(parent, dict) or not isinstance(parent.get('type'), str):
        return None
    name = parent['type']
    names = [_misspelt(name, random_), f'mmdet.{name}', f'nothing.{name}', 'ResNet', 'Adam', 'GN']
    return f'its dict: type {_set(parent, "type", random_.choice(names))}'


def _key_name(parent, key, random_, config) -> str | None:
    if not isinstance(parent, dict) or len(key) < 3:
        return None
    name = _misspelt(key, random_)
    parent[name] = parent.pop(key)
    return f'renamed to {name}'


def _new_key(parent, key, random_, config) -> str | None:
    if not isinstance(parent, dict):
        return None
    name = random_.choice(['foo', 'depth', 'init_cfg', 'interval', 'norm_cfg', 'loss_weight'])
    parent[name] = random_.choice([None, 1, 'abc', {'type': 'GN'}, []])
    return f'its dict has the new key {name}={parent[name]!r}'


def _exchange(parent, key, random_, config) -> str | None:
    other = config
    path = random_.choice(list(_places(config)))
    for step in path:
        other = other[step]
    done = _set(parent, key, copy.deepcopy(other))
    return done and f'set to the value of {".".join(map(str, path))}'


def _misspelt(word: str, random_: random.Random) -> str:
    i = random_.randrange(len(word) - 1)
    swapped = word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    return random_.choice([swapped, word[:i] + word[i + 1 :], word + 's'])


EDITS = (_delete, _wrong_type, _wrong_type, _number, _type_name, _key_name, _new_key, _exchange)
