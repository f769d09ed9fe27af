"""Ctrl-C: the first one ends a search in order, the second one at once. SIGTERM counts as Ctrl-C.

In order: a KeyboardInterrupt, for which the search asks its workers to end and closes its archive. At once: every
worker is killed with its process group, then this process; what is on disk is whole either way, and the search can be
resumed.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

EXIT_CODE = 130


@contextmanager
def interruptible(kill_all: Callable[[], None], folder: Path) -> Iterator[None]:
    """While this holds, signals to end are treated so.

    Args:
        kill_all: Ends every worker at once.
        folder: Of the search, for the line that says how to go on.
    """
    signals = (signal.SIGINT, signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread():
        yield  # Python handles signals in its main thread only
        return
    came = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if came:
            kill_all()
            _tell(f"eureka: ended at once; go on with eureka search --resume {folder}")
            os._exit(EXIT_CODE)
        came = True
        _tell("interrupted: the trainings are being ended in order; Ctrl-C again ends everything at once")
        raise KeyboardInterrupt

    before = {each: signal.signal(each, handle) for each in signals}
    try:
        yield
    finally:
        for each, old in before.items():
            signal.signal(each, old)


def _tell(line: str) -> None:
    # Not by print: the signal may have come in the middle of one.
    try:
        os.write(2, f"\n{line}\n".encode())
    except OSError:
        return  # nobody listens any more; the search ends all the same
