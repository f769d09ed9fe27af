"""Trainings in the process of the test, for searches that are not about processes: no start of torch for each."""

from __future__ import annotations

from collections import deque
from contextlib import nullcontext

import pytest

from eureka.executors.base import Ended, Job
from eureka.executors.create import Wanted
from rl import worker
from rl.record import read_request


class InProcessExecutor:
    """Trains one job at each `wait`, the last one first: results do not come in the order of the requests."""

    slots, threads_per_slot = 1, 1

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()

    def submit(self, job: Job) -> None:
        """Queue a job."""
        self._jobs.append(job)

    def running(self) -> tuple[str, ...]:
        """None: a job ends while it is waited for."""
        return ()

    def wait(self, timeout_s: float) -> list[Ended]:
        """Run a job as the worker does."""
        job = self._jobs.pop()
        result = worker.run(read_request(job.run_dir), job.run_dir)
        return [Ended(job.run_id, "finished", 0 if result["status"] == "ok" else 1, "", attempt=job.attempt)]

    def cancel_all(self) -> None:
        """Forget the queue."""
        self._jobs.clear()

    kill_all = cancel_all


def train_here(patch: pytest.MonkeyPatch) -> None:
    """Have `eureka search` train in the process of the test."""
    patch.setattr(Wanted, "started", lambda *_: nullcontext(InProcessExecutor()))
