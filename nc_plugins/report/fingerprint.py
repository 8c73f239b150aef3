"""A short identifier for a resolved config and the options that change it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping


def fingerprint(config: Mapping, options: Iterable[str] = ()) -> str:
    """Hash a config and its options to 'sha256:' and 16 hexadecimal digits.

    The hash covers neither code nor data.

    Args:
        config: the config with all ``_base_`` files merged, so that an edited base changes the
            hash. The order of keys does not matter.
        options: 'key=value' words as typed. Their order matters, because the last one wins.
    """
    text = json.dumps([_plain(config), list(options)], sort_keys=True)
    # The prefix keeps option parsers from reading the digits as a number such as 12e4.
    return 'sha256:' + hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value):
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    # Python configs may hold classes and functions. Their repr() may contain an address.
    return getattr(value, '__qualname__', None) or type(value).__qualname__
