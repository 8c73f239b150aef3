"""The package and the tools import on Linux, macOS and Windows."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
POSIX_MODULES = {'fcntl', 'grp', 'pty', 'pwd', 'resource', 'syslog', 'termios', 'tty'}
POSIX_NAMES = {
    *('os.fork', 'os.getloadavg', 'os.getuid', 'os.killpg', 'os.mkfifo', 'os.setsid', 'os.uname'),
    *('signal.SIGALRM', 'signal.SIGHUP', 'signal.SIGKILL', 'signal.alarm'),
}


def not_portable(source: str) -> list[str]:
    """Imports outside functions, and names anywhere, that not every system has."""
    tree = ast.parse(source)
    inner = {
        node
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for node in ast.walk(function)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and node not in inner:
            found += [alias.name for alias in node.names if alias.name in POSIX_MODULES]
        elif isinstance(node, ast.ImportFrom) and node not in inner:
            found += [node.module] if node.module in POSIX_MODULES else []
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in POSIX_NAMES:
            found.append(ast.unparse(node))
    return found


def test_everything_is_portable():
    paths = [*(ROOT / 'nc_plugins').rglob('*.py'), *(ROOT / 'tools').glob('*.py')]
    assert {'records.py', 'compare.py', 'jobs.py', 'record.py'} <= {path.name for path in paths}
    found = {str(path.relative_to(ROOT)): not_portable(path.read_text()) for path in paths}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    'source',
    [
        'import fcntl',
        'from resource import getrusage',
        'try:\n    import os, pwd\nexcept ImportError:\n    pass',
        'def f():\n    os.killpg(1, signal.SIGTERM)',
        'HANDLED = (signal.SIGTERM, signal.SIGHUP)',
    ],
)
def test_posix_code_is_found(source):
    assert len(not_portable(source)) == 1


def test_an_import_inside_a_function_is_allowed():
    assert not_portable('def f():\n    import resource\n    return resource.getrusage(0)') == []
