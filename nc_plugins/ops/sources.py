"""The command that compiles the C++ of the "cpu" backend into this installation."""

from __future__ import annotations

import importlib.metadata
import json
import shlex
import sys
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname


def build_command() -> str:
    """The command for this Python, with the folder from which the package was installed."""
    pip = [sys.executable, '-m', 'pip', 'install', '-v', '--no-deps', '--force-reinstall']
    clone = Path(__file__).parents[2]
    if (clone / 'setup.py').is_file():
        return shlex.join([*pip, '-e', str(clone)])
    return shlex.join([*pip, '--no-cache-dir', _installed_from() or 'SOURCES_OF_NC_PLUGINS'])


def _installed_from() -> str | None:
    """The folder or archive that pip installed, if it is still there. pip records its address."""
    try:
        record = importlib.metadata.distribution('nc_plugins').read_text('direct_url.json')
    except importlib.metadata.PackageNotFoundError:
        return None
    address = json.loads(record)['url'] if record else ''
    path = Path(url2pathname(urlparse(address).path))
    is_sources = address.startswith('file:') and path.exists() and path.suffix != '.whl'
    return str(path) if is_sources else None
