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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eureka.executors.arrivals import Arrivals, BadArrival
from eureka.executors.base import NO_PROGRESS_S, Ended, Ending, Job
from eureka.executors.bundle import bundle
from eureka.executors.local import LocalExecutor
from eureka.executors.memory import fair_share
from eureka.executors.ray_cluster import ADDRESS_VARIABLE, INSTALL, Cluster
from eureka.executors.ray_node import ALIVE_S, Order, run_job
from eureka.executors.travel import Bundle, code_digest
from rewards.confine import REQUIRE_VARIABLE
from rl.failures import disk_full
from rl.record import METRICS, REQUEST, read_json
from tasks.errors import UserError

MAX_RUN_BYTES = 2 * 2**30
"""Most that comes back of one run folder."""
_GRACE_S = 5.0  # between asking a worker to end and ending it
_SILENT_S = 12 * ALIVE_S  # a node that says nothing for so long is given up
_UNSEEN_S = 10.0  # more than this between two looks is not held against a node
_CAPACITY_S = 5.0  # how often the nodes are counted
_AHEAD = 8  # messages that a node may be ahead of what is read here
_ENDINGS: tuple[Ending, ...] = ("finished", "crashed", "time_limit", "no_progress", "out_of_memory")


@dataclass
class _Running:
    job: Job
    messages: Any  # Ray's ObjectRefGenerator
    arrivals: Arrivals
    node: str | None = None
    """Where its process is alive; None before it is."""
    silent_s: float = 0.0


class RayExecutor:
    """Jobs on a Ray cluster.

    Args:
        slots: Jobs at once; None takes as many as the nodes bear, counted anew as nodes come and go.
        threads_per_slot: CPU threads of each job; None is one.
        devices: CUDA devices of this machine, for a cluster that is started here.
        address: Of an existing cluster; None takes `RAY_ADDRESS`, and where that is not set starts one here.
        no_progress_s: Seconds in which the progress of each job has to move; None: no limit.
        memory_bytes: Resident memory each job may take; None: its fair share of its node, at least 2 GiB.
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
        *,
        address: str | None = None,
        no_progress_s: float | None = NO_PROGRESS_S,
        memory_bytes: int | None = None,
        worker_command: Sequence[str] | None = None,
    ) -> None:
        LocalExecutor(slots, threads_per_slot, no_progress_s=no_progress_s, memory_bytes=memory_bytes)  # checks them
        self.threads_per_slot = threads_per_slot or 1
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        shares = max(cores, self.threads_per_slot, (slots or 1) * self.threads_per_slot)
        address = address or os.environ.get(ADDRESS_VARIABLE) or None
        self._cluster = Cluster(address, shares, len(devices))
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
        if address is None and memory_bytes is None:
            memory_bytes = fair_share(slots or self._capacity)
        self._no_progress_s, self._memory_bytes = no_progress_s, memory_bytes
        self._command = None if worker_command is None else tuple(worker_command)
        self._looked_s = time.monotonic()
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

    @property
    def address(self) -> str:
        """Where the cluster is reached, for `RAY_ADDRESS`."""
        return self._ray.get_runtime_context().gcs_address

    def prepare(self, task_ref: str) -> None:
        """Make ready to send a task, before anything is paid for. Raises UserError where it cannot travel."""
        if task_ref not in self._bundles:
            found = bundle(task_ref)
            self._bundles[task_ref] = (found, self._ray.put(found.files) if found else {})

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
            ended = self._read(deadline) + self._give_up_silent()
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

    def kill_all(self) -> None:
        """Nothing to do: a cluster ends the tasks of a process that has ended, and their workers go with them."""

    def close(self) -> None:
        """End every process and leave the cluster; one that was started here ends."""
        if hasattr(self, "_jobs"):
            self.cancel_all()
        self._cluster.close()

    def _files_of(self, job: Job) -> tuple[Bundle | None, Any]:
        """The bundle of a job's task, and its files as Ray has them."""
        request = read_json(job.run_dir / REQUEST)
        task = request.get("task") if isinstance(request, dict) else None
        if not isinstance(task, str):
            return None, {}
        self.prepare(task)
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
                no_progress_s=self._no_progress_s,
                memory_bytes=self._memory_bytes,
                max_bytes=MAX_RUN_BYTES,
                require_sandbox=bool(os.environ.get(REQUIRE_VARIABLE)),
                start=_start_files(job.run_dir),
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
        """The next message of a job, or how Ray lost it. An error from a node is of its cause's class as well, so that
        what arrives is written elsewhere."""
        errors = self._ray.exceptions
        running.silent_s = 0.0
        try:
            message = self._ray.get(next(running.messages))
        except errors.TaskCancelledError:
            return self._end(running, "killed", cause=f"its task on {running.node} was cancelled by someone else")
        except errors.RayTaskError as error:
            if isinstance(error.cause, ImportError):
                raise UserError(f"a node of the Ray cluster lacks our packages ({error.cause}): {INSTALL}") from error
            what = f"{type(error.cause).__name__}: {error.cause}"
            return self._end(running, "crashed", cause=f"its task on {running.node} failed: {what}")
        except errors.OutOfMemoryError as error:
            return self._end(running, "out_of_memory", cause=f"Ray ended it for want of memory: {error}")
        except errors.RayError as error:  # the node, its Ray worker or the way there is gone
            return self._end(running, "crashed", cause=f"node {running.node} was lost: {type(error).__name__}: {error}")
        except StopIteration:
            return self._end(running, "crashed", cause=f"the task on {running.node} ended without a last word")
        return self._take(running, message)

    def _take(self, running: _Running, message: Any) -> Ended | None:
        """Do what a message says."""
        try:
            return self._told(running, message)
        except BadArrival as bad:
            self._cancel(running)
            return self._end(running, "crashed", cause=f"node {running.node} sent {bad}")
        except OSError as error:
            self._cancel(running)
            if not disk_full(error):
                raise UserError(f"{running.job.run_dir} cannot be written: {error.strerror}.") from error
            return self._end(running, "disk_full", cause=str(error))

    def _told(self, running: _Running, message: Any) -> Ended | None:
        if not isinstance(message, dict):
            raise BadArrival(f"a {type(message).__name__} in place of a message")
        kind = message.get("kind")
        if kind == "metrics":
            running.arrivals.metrics(message.get("offset"), message.get("data"))
        elif kind == "file":
            running.arrivals.file(message.get("name"), message.get("data"), message.get("last"))
        elif kind == "started":
            running.node = str(message.get("node"))[:100]
        elif kind == "refused":
            raise UserError(f"{message.get('text')!s:.300}; the same version is needed on every node.")
        elif kind == "ended" and message.get("ending") in _ENDINGS:
            code = message.get("exit_code")
            tail, cause = str(message.get("stderr_tail"))[-4000:], str(message.get("cause"))
            return self._end(running, message["ending"], code if isinstance(code, int) else None, tail, cause)
        elif kind != "alive":
            raise BadArrival(f"a message of kind {kind!r:.50}")
        return None

    def _end(
        self, running: _Running, ending: Ending, code: int | None = None, tail: str = "", cause: str = ""
    ) -> Ended:
        running.arrivals.close()
        del self._jobs[running.job.run_id]
        return Ended(running.job.run_id, ending, code, tail, " ".join(cause.split())[:500], running.job.attempt)

    def _give_up_silent(self) -> list[Ended]:
        """Nodes that hang with their tasks, or that cannot be reached and are not known to be lost."""
        now = time.monotonic()
        since_s, self._looked_s = min(now - self._looked_s, _UNSEEN_S), now
        ended = []
        for running in list(self._jobs.values()):
            running.silent_s += since_s if running.node is not None else 0.0
            if running.silent_s > _SILENT_S:
                self._cancel(running)
                cause = f"node {running.node} sent nothing for {running.silent_s:.0f} s"
                ended.append(self._end(running, "no_progress", cause=cause))
        return ended

    def _cancel(self, running: _Running) -> None:
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.cancel(running.messages, force=True)

    def _is_over(self, running: _Running, patience_s: float) -> bool:
        """Whether a job's task has ended, however; waits for that at most so long."""
        done, _ = self._ray.wait([running.messages.completed()], timeout=patience_s)
        return bool(done)


def _start_files(run_dir: Path) -> dict[str, bytes]:
    """What a training goes on from: a checkpoint and the metrics so far, which the search has put into its folder."""
    saved = sorted(run_dir.glob("model_*"))
    return {path.name: path.read_bytes() for path in (*saved, run_dir / METRICS)} if saved else {}
