"""Names and titles of strangers, made harmless in Markdown and in spreadsheets."""

from __future__ import annotations

import html
import re
from pathlib import PurePosixPath
from urllib.parse import quote

_MARKDOWN = re.compile(r'[\\`*\[\]|~]')
_FORMULA = ('=', '+', '-', '@', '\t', '\r')  # how a cell begins that a spreadsheet computes


def inline(text: str) -> str:
    """``text`` in a line of Markdown: no HTML, no link, no emphasis, no line break."""
    return _MARKDOWN.sub(r'\\\g<0>', html.escape(' '.join(text.split()), quote=False))


def link(target: str | PurePosixPath) -> str:
    """The relative path ``target`` as the target of a link. A colon would make it a URL."""
    return quote(str(target), safe='/')


def code_block(text: str) -> str:
    """``text`` as a block of code, whatever it contains."""
    longest = max(map(len, re.findall('`+', text)), default=0)
    fence = '`' * max(3, longest + 1)
    return f'{fence}\n{text}\n{fence}'


def cell(value):
    """``value`` in a CSV file, where an apostrophe keeps a spreadsheet from computing a text."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
