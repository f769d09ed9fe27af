"""Processes as /proc shows them: whose group, since when, with how much memory; and ending them by group.

A pid is used again by others, a pid with its start time is not. The executor notes both for each worker, beside a
word that the worker and all its descendants carry in their environment, so that a later search finds what a killed
one left behind and harms nobody else. Without Linux nothing is found.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rl.record import read_json, write_json_atomic
from tasks.errors import UserError

NOTE = "worker.json"
MARK = "EUREKA_WORKER"
"""Variable of a worker's environment that holds its word."""
_PROC = Path("/proc")
_GONE_S = 10.0  # for the kernel to take down what was killed


@dataclass(frozen=True)
class ProcessStat:
    """A line of /proc/PID/stat, proc(5)."""

    pid: int
    state: str
    group: int
    session: int
    start_ticks: int
    """Since boot, in clock ticks: field 22."""
    resident_bytes: int


def process_stat(pid: int) -> ProcessStat | None:
    """What the kernel says of a process; None where there is none, or no /proc."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name stands in brackets and may hold any character; field 3 follows the last bracket.
    fields = text.rpartition(")")[2].split()
    if len(fields) < 22:
        return None
    page = os.sysconf("SC_PAGE_SIZE")
    return ProcessStat(pid, fields[0], int(fields[2]), int(fields[3]), int(fields[19]), int(fields[21]) * page)


def all_processes() -> Iterator[ProcessStat]:
    """Every process that can be seen, also those that have ended and were not waited for."""
    if not _PROC.is_dir():
        return
    for entry in os.listdir(_PROC):
        if entry.isdigit() and (found := process_stat(int(entry))):
            yield found


def resident_bytes(groups: Iterable[int]) -> dict[int, int]:
    """Process group -> resident memory of its processes, bytes; memory that they share counts in each."""
    found = dict.fromkeys(groups, 0)
    for process in all_processes():
        if process.group in found:
            found[process.group] += process.resident_bytes
    return found


def proportional_bytes(group: int) -> int | None:
    """Resident memory of a process group, bytes, what is shared divided among those that share it; None where the
    kernel does not tell. Costs milliseconds a process."""
    total = 0
    for process in all_processes():
        if process.group != group or process.state == "Z":
            continue
        try:
            text = (_PROC / str(process.pid) / "smaps_rollup").read_text()
        except ProcessLookupError:
            continue
        except OSError:
            return None
        sizes = [line.split()[1] for line in text.splitlines() if line.startswith("Pss:")]
        if not sizes:
            return None
        total += int(sizes[0]) * 1024
    return total


def signal_group(group: int, *numbers: signal.Signals) -> None:
    """Send signals to every process of a group, if there is one."""
    for number in numbers:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)


def boot_id() -> str:
    """Names this start of the machine; "" where the kernel does not tell."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def note_worker(run_dir: Path, pid: int, word: str) -> None:
    """Write down which process works in `run_dir`. `word`: the value of `MARK` in its environment."""
    found = process_stat(pid)
    start = None if found is None else found.start_ticks
    write_json_atomic(run_dir / NOTE, {"pid": pid, "start_ticks": start, "boot_id": boot_id(), "word": word})


def forget_worker(run_dir: Path) -> None:
    """Remove the note: its process has ended."""
    with contextlib.suppress(OSError):
        (run_dir / NOTE).unlink()


def end_orphans(run_dir: Path) -> str | None:
    """End what an earlier search left running in `run_dir`, and say what that was; None where there was nothing.

    Ends the noted worker with its process group, and processes that it started, by the word they carry. A process that
    only has the noted pid is left alone, and so is everything where the note is of another start of the machine.

    Raises:
        UserError: it cannot be ended.
    """
    try:
        note = read_json(run_dir / NOTE)
    except UserError:
        return None  # none, or one that was never finished: nothing says who it would be
    if not isinstance(note, dict) or not boot_id() or note.get("boot_id") != boot_id():
        return None
    word, pid = note.get("word"), note.get("pid")
    if not isinstance(word, str) or not word or not isinstance(pid, int):
        return None
    # The word is asked of the leader too: the worker could have written the note itself.
    orphans = [process for process in all_processes() if process.state != "Z" and _carries(process.pid, word)]
    if not orphans:
        forget_worker(run_dir)
        return None
    leader = next((p for p in orphans if p.pid == pid and p.start_ticks == note.get("start_ticks")), None)
    if leader is not None and leader.group == leader.pid:
        signal_group(leader.group, signal.SIGKILL)
    for process in orphans:
        _kill(process)
    _wait_until_gone(orphans, run_dir)
    forget_worker(run_dir)
    what = f"worker {pid}" if leader is not None else f"what worker {pid} had started"
    return f"{run_dir}: ended {what}, which a killed search had left running ({len(orphans)} processes)"


def _carries(pid: int, word: str) -> bool:
    try:
        return f"{MARK}={word}".encode() in (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _same(process: ProcessStat) -> bool:
    """Whether it still runs, and is no other one with its pid."""
    now = process_stat(process.pid)
    return now is not None and now.start_ticks == process.start_ticks and now.state != "Z"


def _kill(process: ProcessStat) -> None:
    if _same(process):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, signal.SIGKILL)


def _wait_until_gone(orphans: list[ProcessStat], run_dir: Path) -> None:
    deadline = time.monotonic() + _GONE_S
    while left := [process.pid for process in orphans if _same(process)]:
        if time.monotonic() > deadline:
            pids = ", ".join(map(str, left))
            raise UserError(f"{run_dir}: process {pids} of a killed search still runs and cannot be ended; end it.")
        time.sleep(0.02)
