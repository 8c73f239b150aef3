"""One short name for everything that decides what a training does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping


def fingerprint(config: Mapping, options: Iterable[str] = ()) -> str:
    """Name a resolved config and the options that change it, as 'sha256:' and 16 hex digits.

    ``config`` is the content after all ``_base_`` files are merged, so an edit in a base shows;
    ``options`` are the 'key=value' words as typed, whose order counts: the last one wins. The order
    of keys in ``config`` does not count. Code and data are not part of it.
    """
    text = json.dumps([_plain(config), list(options)], sort_keys=True)
    # With this prefix no option parser can take the digits for a number such as 12e4.
    return 'sha256:' + hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value):
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    # A class or function in a Python config: its name, since repr() may hold an address.
    return getattr(value, '__qualname__', None) or type(value).__qualname__
