"""Files that come back from another machine, written where the search looks for them.

What arrives is not trusted: names are checked, sizes bounded, nothing is unpickled. A file has its name once it is
whole and on the disk. Metrics are written as they come, for those who watch.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from eureka.executors.processes import NOTE
from rl.progress import PROGRESS
from rl.record import METRICS, REQUEST

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}")
_NOT_THESE = (REQUEST, METRICS, NOTE, PROGRESS, "attempts.json")  # the search's own, or written otherwise
_MAX_FILES = 10_000


class BadArrival(Exception):
    """Something came that no node of ours sends."""


def is_file_name(name: str) -> bool:
    """Whether a file of this name may be brought back: flat and plain, and none of the search's own."""
    return _FILE_NAME.fullmatch(name) is not None and name not in _NOT_THESE


class Arrivals:
    """Writes one job's files into its run folder.

    Args:
        run_dir: Exists.
        max_bytes: Most that all of them may hold together.
    """

    def __init__(self, run_dir: Path, max_bytes: int) -> None:
        self._run_dir = run_dir
        self._left = max_bytes
        self._whole: set[str] = set()
        self._part: tuple[str, int] | None = None  # name and handle of the file that is arriving

    def metrics(self, offset: Any, data: Any) -> None:
        """Write a piece of metrics.jsonl; the file ends with it.

        Raises:
            BadArrival: it leaves a gap, is too much, or is no bytes.
            OSError: it cannot be written.
        """
        data = self._counted(data)
        handle = os.open(self._run_dir / METRICS, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        with open(handle, "wb") as file:
            if not isinstance(offset, int) or not 0 <= offset <= os.fstat(handle).st_size:
                raise BadArrival(f"a piece of {METRICS} at {offset!r:.50}")
            file.truncate(offset)
            file.seek(offset)
            file.write(data)

    def file(self, name: Any, data: Any, last: Any) -> None:
        """Write the next piece of a file, and give it its name with the last one.

        Raises:
            BadArrival: the name will not do, a piece is out of turn, or it is too much.
            OSError: it cannot be written.
        """
        data = self._counted(data)
        if not isinstance(name, str) or not is_file_name(name):
            raise BadArrival(f"a file named {name!r:.80}")
        if name in self._whole or len(self._whole) >= _MAX_FILES or (self._part and self._part[0] != name):
            raise BadArrival(f"a piece of {name} out of turn")
        part = self._run_dir / f".{name}.arriving"
        if self._part is None:
            part.unlink(missing_ok=True)
            self._part = (name, os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        handle = self._part[1]
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
        if last is True:
            os.fsync(handle)
            self.close()
            part.replace(self._run_dir / name)
            _sync_folder(self._run_dir)
            self._whole.add(name)

    def close(self) -> None:
        """Let go of a file that was not whole yet."""
        if self._part is not None:
            os.close(self._part[1])
            self._part = None

    def _counted(self, data: Any) -> bytes:
        if not isinstance(data, bytes):
            raise BadArrival(f"a {type(data).__name__} in place of bytes")
        self._left -= len(data)
        if self._left < 0:
            raise BadArrival("more bytes than a run folder may hold")
        return data


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
