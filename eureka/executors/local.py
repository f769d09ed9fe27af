"""Trainings as processes on this machine, a fixed number at once.

A slot is a share of the CPU cores and, where there are GPUs, one device of `CUDA_VISIBLE_DEVICES`. A job is ended by
its process group: at its time limit, when its progress (`rl.progress`) stands still, above its memory. A worker dies
with the search (Linux: parent-death signal), so that a killed search leaves nothing behind that would write into a
folder which a resumed one uses; what survives nevertheless is found by its note (`eureka.executors.processes`).
"""

from __future__ import annotations

import ctypes
import os
import secrets
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from eureka.designers.redaction import SECRET_LENGTH
from eureka.executors.base import NO_PROGRESS_S, Ended, Ending, Job
from eureka.executors.memory import fair_share, kernel_kills
from eureka.executors.processes import (
    MARK,
    forget_worker,
    note_worker,
    proportional_bytes,
    resident_bytes,
    signal_group,
)
from rewards.confine import is_secret
from rl import progress
from rl.failures import DISK_FULL_EXIT, disk_full
from tasks.errors import UserError

WORKER = (sys.executable, "-P", "-m", "rl.worker")
"""What is started for a job, followed by its folder. -P: a user's `rewards.py` or `tasks/` in the working directory is
not ours."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded before any fork
_GRACE_S = 5.0  # between asking a process to end and ending it
_POLL_S = 0.1
_WATCH_S = 1.0
_UNSEEN_S = 10.0  # more than this between two looks is not held against a job: all may have been frozen together
_GIB = 2**30


@dataclass
class _Process:
    job: Job
    slot: int
    popen: subprocess.Popen[bytes]
    log: IO[bytes]
    started_s: float
    kernel_kills_before: int
    ending: Ending | None = None
    """Set when we end it."""
    cause: str = ""
    asked_to_end_s: float | None = None
    progress: str = ""
    stalled_s: float = 0.0


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that a training may see: none that is named like a secret, none that holds one of their values,
    none with a user's password in an address."""
    secrets = {name: value for name, value in environ.items() if is_secret(name, value)}
    # Shorter values are placeholders, and may stand in any other variable by chance. A path, such as that of a file
    # with a token, is no secret and part of many other values.
    values = {v.strip() for v in secrets.values() if len(v.strip()) >= SECRET_LENGTH and v.strip()[0] not in "/~."}
    return {
        name: value
        for name, value in environ.items()
        if name not in secrets and not any(secret in value for secret in values)
    }


def visible_devices() -> list[str]:
    """CUDA devices this process may use, from CUDA_VISIBLE_DEVICES or the driver."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [device.strip() for device in listed.split(",") if device.strip() not in ("", "-1")]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []


class LocalExecutor:
    """Local processes.

    Args:
        slots: Jobs at once; None takes as many as the cores bear with threads_per_slot, or one a core: two trainings of
            one thread each outrun one training of two.
        threads_per_slot: CPU threads of each job; None shares the cores out evenly.
        devices: CUDA device names for the slots in turn; empty on a CPU.
        no_progress_s: Seconds in which the progress of each job has to move; None: no limit.
        memory_bytes: Resident memory each job may take with all its processes; None: its fair share of the machine, at
            least 2 GiB.
        worker_command: Run in place of `python -m rl.worker`, with the run folder as its last argument.

    Raises:
        UserError: slots, threads_per_slot or a limit is not positive.
    """

    def __init__(
        self,
        slots: int | None = None,
        threads_per_slot: int | None = None,
        devices: list[str] | None = None,
        *,
        no_progress_s: float | None = NO_PROGRESS_S,
        memory_bytes: int | None = None,
        worker_command: Sequence[str] | None = None,
    ) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._devices = list(devices or [])
        self.slots = max(1, cores // (threads_per_slot or 1)) if slots is None else slots
        if self.slots < 1:
            raise UserError(f"--slots is {self.slots}; expected at least 1.")
        self.threads_per_slot = max(1, cores // self.slots) if threads_per_slot is None else threads_per_slot
        if self.threads_per_slot < 1:
            raise UserError(f"--threads is {self.threads_per_slot}; expected at least 1.")
        if no_progress_s is not None and not no_progress_s > 0:
            raise UserError(f"--no-progress-s is {no_progress_s}; expected a number above 0, or none.")
        if memory_bytes is not None and memory_bytes <= 0:
            raise UserError(f"the memory of a training is {memory_bytes} bytes; expected a number above 0.")
        self._command = WORKER if worker_command is None else tuple(worker_command)
        self._no_progress_s = no_progress_s
        self._memory_bytes = fair_share(self.slots) if memory_bytes is None else memory_bytes
        self._watched_s = time.monotonic()
        self._not_started: list[Ended] = []
        self._queue: deque[Job] = deque()
        self._processes: dict[str, _Process] = {}

    def submit(self, job: Job) -> None:
        """Queue a job; it starts as soon as a slot is free."""
        if job.run_id in self._processes or any(queued.run_id == job.run_id for queued in self._queue):
            raise ValueError(f"job {job.run_id} was submitted twice")
        self._queue.append(job)
        self._start_queued()

    def running(self) -> tuple[str, ...]:
        """Ids of jobs whose process is alive."""
        return tuple(self._processes)

    def wait(self, timeout_s: float) -> list[Ended]:
        """Jobs that have ended; waits at most timeout_s for the first."""
        deadline = time.monotonic() + timeout_s
        while True:
            self._start_queued()
            self._watch()
            ended = [outcome for run_id in tuple(self._processes) if (outcome := self._poll(run_id))]
            ended += self._not_started
            self._not_started.clear()
            if ended or not self._processes or time.monotonic() >= deadline:
                self._start_queued()
                return ended
            time.sleep(min(_POLL_S, max(0.0, deadline - time.monotonic())))

    def cancel_all(self) -> None:
        """End every process, politely at first, and forget the queue."""
        self._queue.clear()
        for process in self._processes.values():
            _ask_to_end(process)
        deadline = time.monotonic() + _GRACE_S
        for process in self._processes.values():
            while _runs(process.popen) and time.monotonic() < deadline:
                time.sleep(_POLL_S / 5)
            self._close(process)
        self._processes.clear()

    def kill_all(self) -> None:
        """End every process at once; asks and waits for none."""
        for process in list(self._processes.values()):
            signal_group(process.popen.pid, signal.SIGKILL)

    def _start_queued(self) -> None:
        while self._queue and len(self._processes) < self.slots:
            taken = {process.slot for process in self._processes.values()}
            slot = next(index for index in range(self.slots) if index not in taken)
            job = self._queue.popleft()
            try:
                self._processes[job.run_id] = self._start(job, slot)
            except OSError as error:
                if not disk_full(error):
                    raise
                self._not_started.append(Ended(job.run_id, "disk_full", None, "", str(error), job.attempt))

    def _start(self, job: Job, slot: int) -> _Process:
        word = secrets.token_hex(16)
        log = open(job.run_dir / "worker.log", "wb")  # noqa: SIM115 - closed when the process has ended
        popen = subprocess.Popen(
            [*self._command, str(job.run_dir)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=self._environment(slot) | {MARK: word},
            start_new_session=True,
            preexec_fn=_die_with_parent if _LIBC else None,
        )
        process = _Process(job, slot, popen, log, time.monotonic(), kernel_kills())
        try:
            note_worker(job.run_dir, popen.pid, word)
        except BaseException:
            self._close(process)
            raise
        return process

    def _close(self, process: _Process) -> int:
        """End what is left of a job's process group, and return the exit code of its first process."""
        # Before it is waited for: until then nobody else can have its number.
        signal_group(process.popen.pid, signal.SIGKILL)
        code = process.popen.wait()
        process.log.close()
        forget_worker(process.job.run_dir)
        return code

    def _environment(self, slot: int) -> dict[str, str]:
        """The worker's environment: its share of the machine, and no keys."""
        kept = without_secrets(os.environ)
        threads = str(self.threads_per_slot)
        kept.update(OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads, PYTHONUNBUFFERED="1")
        if self._devices:
            kept["CUDA_VISIBLE_DEVICES"] = self._devices[slot % len(self._devices)]
        # The packages may be used from a checkout that is not installed.
        root = str(Path(__file__).resolve().parents[2])
        kept["PYTHONPATH"] = os.pathsep.join(part for part in (root, kept.get("PYTHONPATH")) if part)
        return kept

    def _watch(self) -> None:
        """Look at progress and memory of all jobs, about once a second, and end those beyond their limits."""
        now = time.monotonic()
        since_s = now - self._watched_s
        if since_s < _WATCH_S or not self._processes:
            return
        self._watched_s = now
        resident = resident_bytes(process.popen.pid for process in self._processes.values())
        for process in self._processes.values():
            if process.ending is not None:
                continue
            line = progress.read(process.job.run_dir)
            process.stalled_s = 0.0 if line != process.progress else process.stalled_s + min(since_s, _UNSEEN_S)
            process.progress = line
            if self._no_progress_s is not None and process.stalled_s > self._no_progress_s:
                cause = f"no progress for {process.stalled_s:.0f} s (last: {line or 'none at all'})"
                process.ending, process.cause, process.asked_to_end_s = "no_progress", cause, now
                _ask_to_end(process)
                continue
            limit, group = self._memory_bytes, process.popen.pid
            if limit is None or resident[group] <= limit:
                continue
            taken = proportional_bytes(group)
            taken = resident[group] if taken is None else taken
            if taken > limit:
                cause = f"took {taken / _GIB:.2f} GiB of memory, its limit is {limit / _GIB:.2f}"
                process.ending, process.cause = "out_of_memory", cause
                signal_group(group, signal.SIGKILL)

    def _poll(self, run_id: str) -> Ended | None:
        process = self._processes[run_id]
        now = time.monotonic()
        if _runs(process.popen):
            limit = process.job.time_limit_s
            if process.asked_to_end_s is not None and now - process.asked_to_end_s > _GRACE_S:
                signal_group(process.popen.pid, signal.SIGKILL)
            elif process.ending is None and limit is not None and now - process.started_s > limit:
                process.ending, process.asked_to_end_s = "time_limit", now
                _ask_to_end(process)
            return None
        code = self._close(process)
        del self._processes[run_id]
        ending, cause = process.ending, process.cause
        if ending is None and code == -signal.SIGKILL and kernel_kills() > process.kernel_kills_before:
            ending, cause = "out_of_memory", "the kernel ended it for want of memory"
            for other in self._processes.values():  # a kill accounts for one job only
                other.kernel_kills_before += 1
        if ending is None:
            ending = "disk_full" if code == DISK_FULL_EXIT else "finished" if code >= 0 else "crashed"
        tail = _tail(process.job.run_dir / "worker.log")
        return Ended(run_id, ending, code, tail, cause, process.job.attempt)


def _runs(popen: subprocess.Popen[bytes]) -> bool:
    """Whether a child has not ended; one that has stays there to be waited for, so that its number stays its own."""
    if not hasattr(os, "waitid"):  # macOS
        return popen.poll() is None
    return os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def _ask_to_end(process: _Process) -> None:
    """A process that was stopped gets a signal when it goes on."""
    signal_group(process.popen.pid, signal.SIGTERM, signal.SIGCONT)


def _die_with_parent() -> None:
    """In the child, before exec: the kernel kills it when the thread that started it ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _tail(path: Path, size: int = 2000) -> str:
    try:
        return path.read_bytes()[-size:].decode("utf-8", errors="replace")
    except OSError as error:
        return f"(no log: {error})"
