"""Trainings as processes on this machine, a fixed number at once.

A slot is a share of the CPU cores and, where there are GPUs, one device of `CUDA_VISIBLE_DEVICES`. Liveness is the
process's exit, not its log. A worker dies with the search (Linux: parent-death signal), so that a killed search
leaves nothing behind that would write into a folder which a resumed one uses.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from eureka.designers.redaction import SECRET_LENGTH
from eureka.executors.base import Ended, Ending, Job
from rewards.confine import is_secret
from tasks.errors import UserError

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded before any fork
_GRACE_S = 5.0  # between asking a process to end and ending it
_POLL_S = 0.1


@dataclass
class _Process:
    job: Job
    slot: int
    popen: subprocess.Popen[bytes]
    log: IO[bytes]
    started_s: float
    asked_to_end_s: float | None = None


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

    Raises:
        UserError: slots or threads_per_slot is not positive.
    """

    def __init__(
        self, slots: int | None = None, threads_per_slot: int | None = None, devices: list[str] | None = None
    ) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._devices = list(devices or [])
        self.slots = max(1, cores // (threads_per_slot or 1)) if slots is None else slots
        if self.slots < 1:
            raise UserError(f"--slots is {self.slots}; expected at least 1.")
        self.threads_per_slot = max(1, cores // self.slots) if threads_per_slot is None else threads_per_slot
        if self.threads_per_slot < 1:
            raise UserError(f"--threads is {self.threads_per_slot}; expected at least 1.")
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
            ended = [outcome for run_id in tuple(self._processes) if (outcome := self._poll(run_id))]
            if ended or not self._processes or time.monotonic() >= deadline:
                self._start_queued()
                return ended
            time.sleep(min(_POLL_S, max(0.0, deadline - time.monotonic())))

    def cancel_all(self) -> None:
        """End every process, politely at first, and forget the queue."""
        self._queue.clear()
        for process in self._processes.values():
            _signal_group(process.popen, signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_S
        for process in self._processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.popen.wait(max(0.0, deadline - time.monotonic()))
            _signal_group(process.popen, signal.SIGKILL)
            process.popen.wait()
            process.log.close()
        self._processes.clear()

    def _start_queued(self) -> None:
        while self._queue and len(self._processes) < self.slots:
            taken = {process.slot for process in self._processes.values()}
            slot = next(index for index in range(self.slots) if index not in taken)
            job = self._queue.popleft()
            self._processes[job.run_id] = self._start(job, slot)

    def _start(self, job: Job, slot: int) -> _Process:
        log = open(job.run_dir / "worker.log", "wb")  # noqa: SIM115 - closed when the process has ended
        popen = subprocess.Popen(
            [sys.executable, "-m", "rl.worker", str(job.run_dir)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=self._environment(slot),
            start_new_session=True,
            preexec_fn=_die_with_parent if _LIBC else None,
        )
        return _Process(job, slot, popen, log, time.monotonic())

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

    def _poll(self, run_id: str) -> Ended | None:
        process = self._processes[run_id]
        code = process.popen.poll()
        now = time.monotonic()
        if code is None:
            limit = process.job.time_limit_s
            if process.asked_to_end_s is not None and now - process.asked_to_end_s > _GRACE_S:
                _signal_group(process.popen, signal.SIGKILL)
            elif process.asked_to_end_s is None and limit is not None and now - process.started_s > limit:
                process.asked_to_end_s = now
                _signal_group(process.popen, signal.SIGTERM)
            return None
        _signal_group(process.popen, signal.SIGKILL)  # whatever it left behind in its group
        process.log.close()
        del self._processes[run_id]
        ending: Ending = "finished" if code >= 0 else "crashed"
        if process.asked_to_end_s is not None:
            ending = "time_limit"
        return Ended(run_id, ending, code, _tail(process.job.run_dir / "worker.log"))


def _die_with_parent() -> None:
    """In the child, before exec: the kernel kills it when the thread that started it ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _signal_group(popen: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(popen.pid, number)


def _tail(path: Path, size: int = 2000) -> str:
    try:
        return path.read_bytes()[-size:].decode("utf-8", errors="replace")
    except OSError as error:
        return f"(no log: {error})"
