"""A full disk: no training starts until there is room again. One line says so, one that it goes on."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path

from eureka.listener import Listener
from rl.failures import disk_full

ROOM_BYTES = 64 * 2**20
"""Free space that a training is begun with again: checkpoints and records of several."""
_LOOK_S = 2.0
_PROBE_BYTES = 2**20  # really written: a quota does not show in the free space
_MIB = 2**20


class Pause:
    """Lasts from a write that failed for want of room until there is room. Args: listener: told of both."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._folder: Path | None = None
        self._looked_s = 0.0

    @property
    def active(self) -> bool:
        """Whether a pause was begun and has not been seen to be over."""
        return self._folder is not None

    def begin(self, who: str, folder: Path) -> None:
        """`who` could not write to `folder`."""
        if self._folder is not None:
            return
        self._folder = _existing(folder)
        self._looked_s = time.monotonic()
        self._say(
            f"{who}: the disk of {self._folder} is full, or a quota is used up ({_free(self._folder)} MiB free): no "
            f"training starts before {ROOM_BYTES // _MIB} MiB are free. The search then goes on by itself; Ctrl-C ends "
            "it in order."
        )

    def lasts(self) -> bool:
        """Whether there is still no room; looks every two seconds."""
        if self._folder is None:
            return False
        if time.monotonic() - self._looked_s < _LOOK_S:
            return True
        self._looked_s = time.monotonic()
        folder = _existing(self._folder)
        if not _has_room(folder):
            return True
        self._folder = None
        self._say(f"there is room again ({_free(folder)} MiB free): the search goes on")
        return False

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError):  # people may be told through a file on the same disk
            self._listener.say(text)


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.resolve().parents) if place.is_dir())


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free // _MIB


def _has_room(folder: Path) -> bool:
    if shutil.disk_usage(folder).free < ROOM_BYTES:
        return False
    probe = folder / f".room.{os.getpid()}.part"
    try:
        with probe.open("wb") as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if not disk_full(error):
            raise
        return False
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    return True
