"""What a node of a cluster needs to know of a search: the files of its task, and which code it runs. Imports little,
since every task of a cluster imports it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_TRAINING = ("tasks", "rewards", "rl")  # the packages that a training's result depends on


@dataclass(frozen=True)
class Bundle:
    """The files of a task."""

    ref: str
    """The task's reference, its path relative to the bundle's root."""
    files: dict[str, bytes]
    """Relative path, with slashes -> content."""

    def unpack(self, root: Path) -> str:
        """Write the files below `root`, which exists; returns the reference of the task there."""
        for name, data in self.files.items():
            place = root / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        return str(root / self.ref)


@cache
def code_digest() -> str:
    """Hash of the code that a training's result depends on; equal on machines whose fitness can be compared."""
    digest = hashlib.sha256()
    for package in _TRAINING:
        for path in sorted((_ROOT / package).rglob("*")):
            if path.suffix in (".py", ".xml"):
                digest.update(f"{path.relative_to(_ROOT).as_posix()}\0".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
