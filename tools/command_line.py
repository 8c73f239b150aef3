"""What all command lines share: messages for errors, exit codes and signals.

Uses the standard library only, because it reports missing packages.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def required_imports(exit_code: int = 1) -> Iterator[None]:
    """Exit with one sentence if an import inside the ``with`` block finds no package."""
    try:
        yield
    except ModuleNotFoundError as error:
        print(
            f'error: {error}: in a clone run `make setup` and use its .venv/bin/python, elsewhere '
            '`nc doctor` prints what to install',
            file=sys.stderr,
        )
        sys.exit(exit_code)


def _exit(*_) -> None:
    """Raise SystemExit, so that a SIGTERM cleans up as Ctrl-C does."""
    # The data loading workers may have received the signal too, and torch would raise an error.
    if hasattr(signal, 'SIGCHLD'):
        signal.signal(signal.SIGCHLD, lambda *_: None)
    sys.exit(128 + signal.SIGTERM)


def run_tool(
    main: Callable[[], int | None],
    errors: type[Exception] | tuple[type[Exception], ...],
    *,
    exit_code: int = 1,
    interrupted: str = 'interrupted',
) -> int:
    """Call ``main`` and return the exit code of the program.

    Args:
        main: the work; returns an exit code, or None for 0.
        errors: exceptions caused by the user. They give one line on stderr. Any other exception
            keeps its traceback.
        exit_code: the exit code after one of ``errors``.
        interrupted: the line on stderr after Ctrl-C, which gives exit code 130. SIGTERM gives 143.
    """
    previous = signal.signal(signal.SIGTERM, _exit)
    try:
        return main() or 0
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
    except errors as error:
        print('error:', ' '.join(str(error).split()), file=sys.stderr)
        return exit_code
    finally:
        signal.signal(signal.SIGTERM, previous)
