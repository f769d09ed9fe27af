"""A worker's heartbeat: RUN_DIR/progress holds what it does and a counter that moves with its work.

One line, written over in place, at most twice a second: "training 1234". Whoever watches compares its content
with the last one seen, by a clock of its own. A process that has not called `start` has no heartbeat, so a training
in the user's own process writes none.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

PROGRESS = "progress"
_EVERY_S = 0.5
_WIDTH = 40  # bytes of the line, always the same: what is written over leaves no rest


class _Heart:
    def __init__(self, write: Callable[[str, int], None]) -> None:
        self.write = write
        self.phase = ""
        self.count = 0
        self.written_s = 0.0

    def beat(self, phase: str) -> None:
        self.count += 1
        now = time.monotonic()
        if phase == self.phase and now - self.written_s < _EVERY_S:
            return
        self.phase, self.written_s = phase, now
        self.write(phase, self.count)


_heart: _Heart | None = None
_file: int | None = None


def start(run_dir: Path) -> None:
    """Begin the heartbeat of this process in `run_dir`. Raises OSError where it cannot be written."""
    global _heart, _file
    stop()
    file = os.open(run_dir / PROGRESS, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)

    def write(phase: str, count: int) -> None:
        os.lseek(file, 0, os.SEEK_SET)
        os.write(file, f"{phase} {count}".ljust(_WIDTH - 1).encode() + b"\n")

    _heart, _file = _Heart(write), file
    beat("start")


def relay(tell: Callable[[int], None]) -> None:
    """Have beats of this process told to another one, by count; for a process that works on behalf of a worker."""
    global _heart
    stop()
    _heart = _Heart(lambda phase, count: tell(count))


def beat(phase: str) -> None:
    """Say that work goes on. phase: a word, such as "training"; a new one is written at once."""
    if _heart is not None:
        _heart.beat(phase)


def stop() -> None:
    """End the heartbeat of this process."""
    global _heart, _file
    if _file is not None:
        os.close(_file)
    _heart = _file = None


def read(run_dir: Path) -> str:
    """The line as it stands; "" where there is none yet."""
    try:
        return (run_dir / PROGRESS).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
