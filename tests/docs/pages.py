"""The Markdown pages of the repository, and what the tests of this folder read from them."""

from __future__ import annotations

import functools
import glob
import itertools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ('*.md', 'docs/**/*.md', 'configs/*/README.md')
    for path in ROOT.glob(pattern)
    if '_build' not in path.parts
)


@functools.cache
def tokens(page: str) -> list[Token]:
    return MarkdownIt().enable('table').parse((ROOT / page).read_text(encoding='utf-8'))


def inline(page: str) -> Iterator[Token]:
    """The tokens inside of paragraphs, headings and tables."""
    for token in tokens(page):
        yield from token.children or ()


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a language. Commands in a block without one are read as bash."""
    return [
        token.content
        for token in tokens(page)
        if token.type in ('fence', 'code_block') and (token.info.strip() or 'bash') == language
    ]


def code_spans(page: str) -> list[str]:
    return [token.content for token in inline(page) if token.type == 'code_inline']


def links(page: str) -> list[str]:
    """Targets of links and images that are files of the repository or headings."""
    targets = [token.attrGet('href') or token.attrGet('src') for token in inline(page)]
    return [target for target in targets if target and not re.match(r'\w+:', target)]


def anchors(page: str) -> set[str]:
    """The anchors that GitHub gives to the headings."""
    pairs = itertools.pairwise(tokens(page))
    titles = [title.children for opening, title in pairs if opening.type == 'heading_open']
    texts = [''.join(token.content for token in title) for title in titles]
    return {re.sub(r'[^\w\- ]', '', text.lower()).replace(' ', '-') for text in texts}


def shell_words(command: str) -> list[str]:
    """The words that bash makes of a command, with braces expanded. It runs nothing else."""
    script = f'set -f; printf "%s\\0" {command}'
    result = subprocess.run(['bash', '-c', script], capture_output=True, text=True, check=True)
    return result.stdout.split('\0')[:-1]


def exists(path: str, *folders: str) -> bool:
    """Whether a file matches ``path``, which may have braces, ``*`` and ``**``."""
    words = shell_words(path) if '{' in path else [path]
    return all(
        any(glob.glob(str(ROOT / folder / word), recursive=True) for folder in ('', *folders))
        for word in words
    )
