"""What a disk can do to a search: be full, be read-only, be another machine's. The search waits, refuses, or says so.

A write that finds no room is tried again until it succeeds: files are written whole and rows in transactions, so a
failed write left nothing behind. Time is measured by the monotonic clock; the system's may jump.

There are two waits, and none elsewhere: the search's own writes block it (`Patience`), while a training that finds no
room holds up later starts alone, since those that run have to be watched (`Pause`). Whether an error means a full disk
is said by `rl.failures.disk_full`, which workers need too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from rl.failures import disk_full
from tasks.errors import UserError

POLL_S = 5.0
"""Seconds between two tries of a write that found no room."""
REPEAT_S = 600.0
"""Seconds after which a search that still waits says so again."""
ROOM_BYTES = 64 * 2**20
"""Free space that a training is begun with again: checkpoints and records of several."""
_LOOK_S = 2.0
_PROBE_BYTES = 2**20  # really written: a quota does not show in the free space
_PASSING = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EIO: "the disk fails",
}
_PASSING_SQLITE = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk fails or is full",
    sqlite3.SQLITE_BUSY: "another program holds it locked",
}
_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|9p|afs|ceph|lustre|gpfs|beegfs(_nodev)?|pvfs2|glusterfs|davfs\d?|orangefs|ncpfs"
    r"|fuse\.(sshfs|glusterfs|ceph|rclone|s3fs|gcsfuse|goofys|davfs\d?|nfs\w*|juicefs|mfs|moosefs|seaweedfs)"
)
_MOUNTS = Path("/proc/self/mountinfo")  # proc(5): fields 5 mount point, after " - " the type of file system

T = TypeVar("T")


def hindrance(error: BaseException) -> str | None:
    """What keeps a write from being done now though it may be done later; None for every other error."""
    if isinstance(error, UserError) and error.__cause__ is not None:
        return hindrance(error.__cause__)
    if isinstance(error, sqlite3.Error):
        return _PASSING_SQLITE.get((getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF)
    if isinstance(error, shutil.Error):  # of copytree: a list of (from, to, text), without numbers
        return next((words for number, words in _PASSING.items() if os.strerror(number) in str(error)), None)
    return _PASSING.get(error.errno or 0) if isinstance(error, OSError) else None


class Patience:
    """Repeats what a full disk refused, until it is done.

    Args:
        folder: On the disk in question.
        say: Takes a line for people.
        poll_s: Seconds between two tries.
    """

    def __init__(self, folder: Path, say: Callable[[str], None], poll_s: float | None = None) -> None:
        self.folder = folder
        self.poll_s = poll_s
        self._say = say
        self.over = False
        """Set when the search ends: from then on a refused write raises at once."""

    def until_done(self, what: str, write: Callable[[], T]) -> T:
        """The result of `write`, which is called again after each error that may pass.

        Args:
            what: What is written, for people.
            write: Writes whole or not at all.

        Raises:
            UserError: it failed for another reason that lies in the disk; or the search is ending.
        """
        began = told = None
        while True:
            try:
                done = write()
            except (OSError, sqlite3.Error, UserError) as error:
                reason = hindrance(error)
                if reason is None or self.over:
                    raise
                now = time.monotonic()
                began = now if began is None else began
                if told is None or now - told >= REPEAT_S:
                    told = now
                    self.say(
                        f"{what} cannot be written: {reason} ({_free(self.folder)}). The search waits and goes on by "
                        "itself as soon as it can; Ctrl-C stops it, to be resumed later."
                    )
                time.sleep(POLL_S if self.poll_s is None else self.poll_s)
                continue
            if began is not None:
                self.say(f"{what} is written after {time.monotonic() - began:.0f} s of waiting; the search goes on.")
            return done

    def say(self, line: str) -> None:
        """A line for people, as `tell` does it."""
        tell(self._say, line)


class Pause:
    """No training starts from a write that failed for want of room until there is room. Args: say: takes a line for
    people."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
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
        self._folder = next(place for place in (folder, *folder.resolve().parents) if place.is_dir())
        self._looked_s = time.monotonic()
        tell(
            self._say,
            f"{who} cannot be written: the disk is full or its quota used up ({_free(self._folder)}). No training "
            f"starts before {ROOM_BYTES / 1e6:.0f} MB are free; the search then goes on by itself. Ctrl-C stops "
            "it, to be resumed later.",
        )

    def lasts(self) -> bool:
        """Whether there is still no room; looks every two seconds."""
        if self._folder is None:
            return False
        if time.monotonic() - self._looked_s < _LOOK_S:
            return True
        self._looked_s = time.monotonic()
        if not has_room(self._folder):
            return True
        tell(self._say, f"there is room again ({_free(self._folder)}): the search goes on.")
        self._folder = None
        return False


def tell(say: Callable[[str], None], line: str) -> None:
    """Say a line. Where people are told by a file on the same full disk, the line is lost and not the search."""
    with contextlib.suppress(OSError):
        say(line)


def has_room(folder: Path) -> bool:
    """Whether `ROOM_BYTES` are free, and a megabyte of them can be written."""
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


def _free(folder: Path) -> str:
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        return f"{folder}: {error.strerror}"
    return f"{usage.free / 1e6:,.1f} MB free of {usage.total / 1e6:,.0f} MB at {folder}"


def check_writable(folder: Path) -> None:
    """Refuse a folder that a search could not write, before anything is paid for or trained.

    Raises:
        UserError: it, or a folder of candidates in it, takes no new file. A full disk is no reason: the search waits.
    """
    for place in (folder, *(folder / name for name in ("candidates", "final", "best"))):
        if place != folder and not place.is_dir():
            continue
        probe = place / f".probe.{os.getpid()}.part"
        try:
            probe.touch()
            probe.unlink()
        except OSError as error:
            if hindrance(error) is None:
                raise UserError(
                    f"cannot write to {place}: {error.strerror}; nothing was started. Make it writable, or search in "
                    "another folder (--out)."
                ) from None
    database = folder / "search.db"
    if database.exists() and not os.access(database, os.W_OK):
        raise UserError(f"cannot write to {database}; nothing was started. Make it writable.")


def remove_parts(folder: Path) -> None:
    """Remove what killed writes of the search left beside its files; only the holder of its lock may."""
    for pattern in (".*.part*", "candidates/*/.*.part", "best/.*.part"):
        for part in folder.glob(pattern):
            if part.is_file():
                part.unlink(missing_ok=True)


def file_system(folder: Path) -> str | None:
    """The type of the file system that a folder is on, such as "ext4" or "nfs4"; None where the system does not say."""
    if sys.platform != "linux":
        return None
    place = str(folder.resolve())
    found: tuple[int, str] | None = None
    for point, kind in _mounts():
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and (found is None or len(point) >= found[0]):  # a later mount hides an earlier one
            found = (len(point), kind)
    return found[1] if found else None


def _mounts() -> Iterator[tuple[str, str]]:
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        left, separator, right = line.partition(" - ")
        fields = left.split()
        if separator and len(fields) > 4 and right.split():
            point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
            yield point, right.split()[0]


def network_line(folder: Path) -> str | None:
    """What to say where a search's database is on a network file system; None where it is on a disk of this machine."""
    kind = file_system(folder)
    if kind is None or not _NETWORK.fullmatch(kind):
        return None
    return (
        f"{folder} is on a network file system ({kind}): SQLite's write-ahead log and file locks are not safe there "
        "once a second machine opens the search; use one machine only, or a local folder (--out)."
    )
