"""Temporary folders that are known by their owner, so that those of processes that were killed can be removed later."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from eureka.executors.processes import process_stat

_OWNER = "owner"


def scratch_folder(prefix: str, parent: Path | None = None) -> Path:
    """A new folder that nobody else may enter, of this process. parent: None is the system's place."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    (folder / _OWNER).write_text(_name(os.getpid()))
    return folder


def abandoned(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """Folders made by `scratch_folder` whose process has ended; of this user, and of processes that could be seen.
    Without /proc there are none."""
    mine = _name(os.getpid())
    for folder in Path(parent or tempfile.gettempdir()).glob(f"{prefix}*"):
        try:
            owner, uid = (folder / _OWNER).read_text(), folder.lstat().st_uid
        except OSError:
            continue  # another user's, not ready yet, or none of ours
        pid, _, rest = owner.partition(".")
        seen = pid.isdecimal() and mine and rest.partition(".")[2] == mine.partition(".")[2].partition(".")[2]
        if seen and uid == os.getuid() and _name(int(pid)) != owner:
            yield folder


def _name(pid: int) -> str:
    """What names a process for good: pid, start in the kernel's ticks, pid namespace; "" where there is none."""
    found = process_stat(pid)
    try:
        space = os.readlink(f"/proc/{pid}/ns/pid").strip("pid:[]")
    except OSError:
        return ""
    return "" if found is None else f"{pid}.{found.start_ticks}.{space}"
