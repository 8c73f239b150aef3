"""A child process that ends when the process that started it has been killed.

A killed process (signal 9, out of memory) cannot end its children. So the children watch it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import psutil

# Environment variable with the number of the process to watch.
PARENT = 'NC_PARENT_PROCESS'
_POLL_SECONDS = 0.5
_GRACE_SECONDS = 10.0


def end_with_parent() -> None:
    """End this process with SIGTERM when the process ``$NC_PARENT_PROCESS`` has ended.

    Without the variable nothing is watched. The variable is deleted, because the children of this
    process have another parent.

    Raises: SystemExit if the parent has ended already.
    """
    number = os.environ.pop(PARENT, None)
    if number is None:
        return
    sentence = f'process {number}, which started this program, has ended, so this program ends too'
    try:
        parent = psutil.Process(int(number))
    except psutil.NoSuchProcess:
        sys.exit(sentence)
    threading.Thread(target=_watch, args=(parent, sentence), daemon=True).start()


def _watch(parent: psutil.Process, sentence: str) -> None:
    while _alive(parent):
        time.sleep(_POLL_SECONDS)
    print(sentence, file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)  # the main thread cleans up
    time.sleep(_GRACE_SECONDS)
    os._exit(128 + signal.SIGTERM)  # it has not, because it waits for another process


def _alive(process: psutil.Process) -> bool:
    try:
        # A zombie has ended, but its own parent has not read its exit code yet.
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
