"""Trainings on a Ray cluster, local or existing.

Plain remote tasks, tried once each: what is tried again is the search's business, and what has ended is on its disk.
Only JSON and a task's files go out, only bytes come back (`ray_node`, `arrivals`), so no shared file system is needed.
Each job reserves its CPU threads and, where the cluster has GPUs, one of them.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from eureka.executors.arrivals import Arrivals, BadArrival
from eureka.executors.base import Ended, Ending, Job
from eureka.executors.bundle import bundle
from eureka.executors.ray_cluster import ADDRESS_VARIABLE, INSTALL, Cluster
from eureka.executors.ray_node import Order, run_job
from eureka.executors.travel import Bundle, code_digest
from rewards.confine import REQUIRE_VARIABLE
from rl.record import REQUEST, read_json
from tasks.errors import UserError

MAX_RUN_BYTES = 2 * 2**30
"""Most that comes back of one run folder."""
_GRACE_S = 5.0  # between asking a worker to end and ending it
_BACKSTOP_S = 30.0  # a node that does not keep a time limit is waited for so much longer
_CAPACITY_S = 5.0  # how often the nodes are counted
_AHEAD = 8  # messages that a node may be ahead of what is read here
_ENDINGS: dict[str, Ending] = {"finished": "finished", "crashed": "crashed", "time_limit": "time_limit"}


@dataclass
class _Running:
    job: Job
    messages: Any  # Ray's ObjectRefGenerator
    arrivals: Arrivals
    node: str | None = None
    """Where its process is alive; None before it is."""
    started_s: float = field(default=0.0)
    overdue: bool = False


class RayExecutor:
    """Jobs on a Ray cluster.

    Args:
        slots: Jobs at once; None takes as many as the nodes bear, counted anew as nodes come and go.
        threads_per_slot: CPU threads of each job; None is one.
        devices: CUDA devices of this machine, for a cluster that is started here.
        address: Of an existing cluster; None takes `RAY_ADDRESS`, and where that is not set starts one here.
        worker_command: Run on the nodes in place of `python -m rl.worker`, with the run folder as its last argument.

    Raises:
        UserError: a number is not positive, Ray is not installed, there is no cluster at the address, or none of its
            nodes bears a job.
    """

    def __init__(
        self,
        slots: int | None = None,
        threads_per_slot: int | None = None,
        devices: Sequence[str] = (),
        address: str | None = None,
        worker_command: Sequence[str] | None = None,
    ) -> None:
        for name, value in (("--slots", slots), ("--threads", threads_per_slot)):
            if value is not None and value < 1:
                raise UserError(f"{name} is {value}; expected at least 1.")
        self.threads_per_slot = threads_per_slot or 1
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        shares = max(cores, self.threads_per_slot, (slots or 1) * self.threads_per_slot)
        self._cluster = Cluster(address or os.environ.get(ADDRESS_VARIABLE) or None, shares, len(devices))
        self._ray = self._cluster.ray
        self._gpus = 1 if self._cluster.has_gpus() else 0
        self._given_slots = slots
        self._capacity, self._counted_s = (
            self._cluster.capacity(self.threads_per_slot, self._gpus > 0),
            time.monotonic(),
        )
        if self._capacity < 1:
            self.close()
            gpu = " and a GPU" if self._gpus else ""
            raise UserError(
                f"no node of the Ray cluster has {self.threads_per_slot} CPUs{gpu} for a job; see --threads."
            )
        self._command = None if worker_command is None else tuple(worker_command)
        self._remote = self._ray.remote(
            num_cpus=self.threads_per_slot,
            num_gpus=self._gpus,
            num_returns="streaming",
            max_retries=0,
            scheduling_strategy="SPREAD",
            _generator_backpressure_num_objects=_AHEAD,
        )(run_job)
        self._queue: deque[Job] = deque()
        self._jobs: dict[str, _Running] = {}
        self._bundles: dict[str, tuple[Bundle | None, Any]] = {}

    @property
    def slots(self) -> int:
        """Jobs at the same time."""
        if self._given_slots is not None:
            return self._given_slots
        if time.monotonic() - self._counted_s > _CAPACITY_S:
            self._capacity = self._cluster.capacity(self.threads_per_slot, self._gpus > 0)
            self._counted_s = time.monotonic()
        return max(1, self._capacity)

    def submit(self, job: Job) -> None:
        """Queue a job. Raises UserError where its task cannot travel."""
        if job.run_id in self._jobs or any(queued.run_id == job.run_id for queued in self._queue):
            raise ValueError(f"job {job.run_id} was submitted twice")
        self._files_of(job)
        self._queue.append(job)
        self._start_queued()

    def running(self) -> tuple[str, ...]:
        """Ids of jobs whose process is alive."""
        return tuple(run_id for run_id, running in self._jobs.items() if running.node is not None)

    def wait(self, timeout_s: float) -> list[Ended]:
        """Jobs that have ended; waits at most timeout_s for the first.

        Raises:
            UserError: a node cannot run our jobs at all, or what arrives cannot be written.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            self._start_queued()
            self._end_overdue()
            ended = self._read(deadline)
            if ended or not self._jobs or time.monotonic() >= deadline:
                self._start_queued()
                return ended

    def cancel_all(self) -> None:
        """End every process, politely at first, and forget the queue."""
        self._queue.clear()
        jobs, self._jobs = list(self._jobs.values()), {}
        for running in jobs:
            running.arrivals.close()
        for force, patience_s in ((False, _GRACE_S + 2.0), (True, _GRACE_S)):
            jobs = [running for running in jobs if not self._is_over(running, 0.0)]
            for running in jobs:
                with contextlib.suppress(self._ray.exceptions.RayError):  # its node is gone
                    self._ray.cancel(running.messages, force=force)
            deadline = time.monotonic() + patience_s
            jobs = [running for running in jobs if not self._is_over(running, max(0.0, deadline - time.monotonic()))]

    def close(self) -> None:
        """End every process and leave the cluster; one that was started here ends."""
        if hasattr(self, "_jobs"):
            self.cancel_all()
        self._cluster.close()

    def _files_of(self, job: Job) -> tuple[Bundle | None, Any]:
        """The bundle of a job's task and its files as Ray has them, made once for each task."""
        request = read_json(job.run_dir / REQUEST)
        task = request.get("task") if isinstance(request, dict) else None
        if not isinstance(task, str):
            return None, {}
        if task not in self._bundles:
            found = bundle(task)
            self._bundles[task] = (found, self._ray.put(found.files) if found else {})
        return self._bundles[task]

    def _start_queued(self) -> None:
        while self._queue and len(self._jobs) < self.slots:
            job = self._queue.popleft()
            found, files = self._files_of(job)
            order = Order(
                request=(job.run_dir / REQUEST).read_text(encoding="utf-8"),
                threads=self.threads_per_slot,
                digest=code_digest(),
                task_ref=found.ref if found else None,
                time_limit_s=job.time_limit_s,
                grace_s=_GRACE_S,
                max_bytes=MAX_RUN_BYTES,
                require_sandbox=bool(os.environ.get(REQUIRE_VARIABLE)),
                command=self._command,
            )
            messages = self._remote.options(name=job.run_id).remote(order.plain(), files)
            self._jobs[job.run_id] = _Running(job, messages, Arrivals(job.run_dir, MAX_RUN_BYTES))

    def _read(self, deadline: float) -> list[Ended]:
        """Read a message of each job that has one; waits for the first until the deadline."""
        jobs = {running.messages: running for running in self._jobs.values()}
        if not jobs:
            return []
        first_s = max(0.0, deadline - time.monotonic())
        ready, waiting = self._ray.wait(list(jobs), num_returns=1, timeout=first_s)
        if ready and waiting:
            ready += self._ray.wait(waiting, num_returns=len(waiting), timeout=0)[0]
        return [ended for messages in ready if (ended := self._read_one(jobs[messages]))]

    def _read_one(self, running: _Running) -> Ended | None:
        errors = self._ray.exceptions
        try:
            message = self._ray.get(next(running.messages))
            if not isinstance(message, dict):
                raise BadArrival(f"a {type(message).__name__} in place of a message")
            return self._take(running, message)
        except StopIteration:
            return self._end(running, "crashed", None, "the task ended without a last word")
        except BadArrival as bad:
            self._cancel(running)
            return self._end(running, "crashed", None, f"node {running.node} sent {bad}")
        except errors.TaskCancelledError:
            return self._end(running, "time_limit" if running.overdue else "killed", None, "cancelled")
        except errors.RayTaskError as error:
            if isinstance(error.cause, ImportError):
                raise UserError(f"a node of the Ray cluster lacks our packages ({error.cause}): {INSTALL}") from error
            text = f"on node {running.node}: {type(error.cause).__name__}: {error.cause}"
            return self._end(running, "crashed", None, " ".join(text.split()))
        except errors.RayError as error:  # the node, its Ray worker or the way there is gone
            text = f"node {running.node} or the task on it was lost: {type(error).__name__}: {error}"
            return self._end(running, "time_limit" if running.overdue else "crashed", None, " ".join(text.split()))

    def _take(self, running: _Running, message: dict[str, Any]) -> Ended | None:
        kind = message.get("kind")
        if kind == "metrics":
            running.arrivals.metrics(message.get("offset"), message.get("data"))
        elif kind == "file":
            running.arrivals.file(message.get("name"), message.get("data"), message.get("last"))
        elif kind == "started":
            running.node, running.started_s = str(message.get("node")), time.monotonic()
        elif kind == "refused":
            raise UserError(f"{message.get('text')!s:.300}; the same version is needed on every node.")
        elif kind == "ended" and message.get("ending") in _ENDINGS:
            code = message.get("exit_code")
            tail = str(message.get("tail"))[-4000:]
            return self._end(running, _ENDINGS[message["ending"]], code if isinstance(code, int) else None, tail)
        else:
            raise BadArrival(f"a message of kind {kind!r:.50}")
        return None

    def _end(self, running: _Running, ending: Ending, code: int | None, tail: str) -> Ended:
        running.arrivals.close()
        del self._jobs[running.job.run_id]
        return Ended(running.job.run_id, ending, code, tail)

    def _end_overdue(self) -> None:
        """The backstop for nodes that hang and do not keep the time limit."""
        for running in self._jobs.values():
            limit = running.job.time_limit_s
            if running.node is None or limit is None or running.overdue:
                continue
            if time.monotonic() - running.started_s > limit + _GRACE_S + _BACKSTOP_S:
                running.overdue = True
                self._cancel(running)

    def _cancel(self, running: _Running) -> None:
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.cancel(running.messages, force=True)

    def _is_over(self, running: _Running, patience_s: float) -> bool:
        """Whether a job's task has ended, however; waits for that at most so long."""
        done, _ = self._ray.wait([running.messages.completed()], timeout=patience_s)
        return bool(done)
