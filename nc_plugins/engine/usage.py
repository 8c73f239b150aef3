"""The exception for mistakes of the user, and helpers for its messages."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from textwrap import shorten

# The end of a traceback: the lines of the message, which are not indented.
LAST_LINES = re.compile(r'^[\w.]+: .*(?:\n(?! ).*)*\Z', re.MULTILINE)


class UsageError(Exception):
    """The user asked for something impossible. The tools print the message without a traceback."""


def is_first_process() -> bool:
    """True on rank 0. Works before torch.distributed is initialised, under any launcher."""
    ranks = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')
    return next((os.environ[name] for name in ranks if name in os.environ), '0') == '0'


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` with the most similar known word, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ''


def one_line(error: BaseException) -> str:
    """The message of ``error`` without line breaks, and without the traceback of a worker."""
    # str() of a KeyError is the repr of its message.
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    # A worker process of a DataLoader sends its traceback as the message of its exception.
    text = text.rpartition('Traceback (most recent call last):')[2]
    if text.startswith('\n') and (last := LAST_LINES.search(text)):
        text = last.group()
    return shorten(text, 600, placeholder=' ...') or type(error).__name__


def type_name(component) -> str:
    """The class that a config dict names, without its scope or module; '' if there is none.

    New-style configs have the class itself in place of its name.
    """
    kind = component.get('type') if isinstance(component, dict) else None
    return (kind if isinstance(kind, str) else getattr(kind, '__name__', '')).rpartition('.')[2]


def listed(value) -> list:
    """``value`` as a list: a config may have one item in place of a list, or None."""
    return list(value) if isinstance(value, (list, tuple)) else [value] if value else []


def some(names: Iterable) -> str:
    """The first ten of ``names`` as the content of a Python tuple."""
    names = list(names)
    shown = ', '.join(repr(name) for name in names[:10])
    return f'{shown}, ...' if len(names) > 10 else shown + (',' if len(names) == 1 else '')
