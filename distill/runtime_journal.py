"""What is written of a run: every question to a planner with its pictures, every answer, every fault, and the figures.

    events.jsonl        one line an event, in order, flushed at once
    images/000012_body_eyes.jpg
    result.json         how it ended; written last, whole

Only the slow loop and the end of a run write; the fast loop touches no disk.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.planner import Picture
from rl.record import write_json_atomic
from tasks.errors import UserError

EVENTS, IMAGES, RESULT = "events.jsonl", "images", "result.json"


class Journal:
    """The record of one run; may be used by several threads."""

    def __init__(self, folder: Path | None) -> None:
        """folder: is made; None keeps the record in memory alone. Raises UserError where it cannot be written."""
        self.folder = folder
        self.events: list[dict[str, Any]] = []
        """All events, as they are written."""
        self._lock = threading.Lock()
        self._file = None
        self._pictures = 0
        if folder is not None:
            try:
                (folder / IMAGES).mkdir(parents=True, exist_ok=True)
                self._file = (folder / EVENTS).open("w", encoding="utf-8")
            except OSError as error:
                raise UserError(f"cannot write into {folder}: {error.strerror}; choose another --out.") from None

    def note(self, kind: str, time_s: float, **facts: Any) -> None:
        """Keep an event. time_s: simulated time."""
        event = {"kind": kind, "time_s": round(time_s, 4), **facts}
        with self._lock:
            self.events.append(event)
            if self._file is not None:
                self._file.write(json.dumps(event, separators=(",", ":")) + "\n")
                self._file.flush()

    def keep(self, body: str, pictures: Sequence[Picture]) -> list[str]:
        """Write pictures; their paths within the folder."""
        if self.folder is None or not pictures:
            return []
        with self._lock:
            number = self._pictures
            self._pictures += 1
        paths = [f"{IMAGES}/{number:06d}_{body}_{picture.camera}.jpg" for picture in pictures]
        for path, picture in zip(paths, pictures, strict=True):
            (self.folder / path).write_bytes(picture.jpeg)
        return paths

    def close(self, result: dict[str, Any]) -> None:
        """Write how it ended."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None
        if self.folder is not None:
            write_json_atomic(self.folder / RESULT, result)
