"""How much memory a training may take, and whether the kernel ended one for want of it.

The limit of a container counts like the machine's memory. Linux: control groups (v2 memory.max and memory.events, v1
memory.limit_in_bytes and memory.oom_control) of this process and those above it; else the machine alone, else nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

LEAST_BYTES = 2 * 2**30
"""A share is at least this much: a training takes half a gigabyte before its first world."""
_SHARE = 0.9  # of the memory; the rest is the search's and the system's
_MEMBERSHIP = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")


def machine_bytes() -> int | None:
    """Memory that this process and its children may use, bytes: the machine's, or less by a control group."""
    try:
        sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, ValueError, OSError):
        return None
    for folder in _control_groups():
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _read(folder / name)
            if text.isdigit():
                sizes.append(int(text))
    return min(sizes)


def fair_share(slots: int) -> int | None:
    """What each of `slots` trainings may take, bytes; None where the memory is not known."""
    total = machine_bytes()
    return None if total is None else min(int(_SHARE * total), max(LEAST_BYTES, int(_SHARE * total / slots)))


def kernel_kills() -> int:
    """Processes that the kernel has ended for want of memory: in our control group if it tells, else on the machine."""
    for folder in _control_groups():
        for name in ("memory.events", "memory.oom_control"):
            count = _counter(folder / name)
            if count is not None:
                return count
    return _counter(Path("/proc/vmstat")) or 0


def _counter(path: Path) -> int | None:
    for line in _read(path).splitlines():
        name, _, value = line.partition(" ")
        if name == "oom_kill" and value.isdigit():
            return int(value)
    return None


def _control_groups() -> Iterator[Path]:
    """Folders of the control groups that count our memory, the innermost first."""
    for line in _read(_MEMBERSHIP).splitlines():
        _, controllers, inside = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = _MOUNT / "memory" if controllers else _MOUNT
        folder = root / inside.strip("/")
        if not folder.is_dir():
            folder = root  # in a container the path is often the host's
        yield folder
        while folder != root:
            folder = folder.parent
            yield folder


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
