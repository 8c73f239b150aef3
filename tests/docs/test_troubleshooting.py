"""docs/troubleshooting.md quotes messages that the package has."""

import ast
import re

from .pages import ROOT, tokens

PAGE = 'docs/troubleshooting.md'


def messages_of_the_page() -> list[str]:
    """The code at the beginning of each item that has a remedy."""
    items = [t.children for t in tokens(PAGE) if t.type == 'inline' and 'Remedy' in t.content]
    return [item[0].content for item in items]


def strings_of_the_package() -> str:
    """All string literals, one a line, with ``...`` in place of the values in f-strings."""
    found = []
    for folder in ('nc_plugins', 'tools'):
        for file in (ROOT / folder).rglob('*.py'):
            for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
                if isinstance(node, ast.JoinedStr):
                    parts = [p.value if isinstance(p, ast.Constant) else '...' for p in node.values]
                    found.append(''.join(parts))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return '\n'.join(' '.join(text.split()).replace('`', '') for text in found)


def test_every_message_is_in_the_package():
    strings = strings_of_the_package()
    messages = messages_of_the_page()
    assert len(messages) > 40
    missing = []
    for message in messages:
        parts = [re.escape(part) for part in message.split('...')]
        if not re.search('.*'.join(parts), strings):
            missing.append(message)
    assert missing == []
