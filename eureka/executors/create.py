"""The executor that a search asks for by name."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from eureka.executors.base import Executor
from eureka.executors.local import LocalExecutor, visible_devices
from eureka.executors.ray_cluster import INSTALL
from tasks.errors import UserError

Kind = Literal["local", "ray"]


@dataclass(frozen=True)
class Wanted:
    """What is known of an executor before a search has a folder.

    Raises:
        UserError: a limit cannot work, or Ray is not installed.
    """

    kind: Kind
    slots: int | None
    no_progress_s: float | None
    memory_bytes: int | None

    def __post_init__(self) -> None:
        self._local(1, [])
        if self.kind == "ray" and importlib.util.find_spec("ray") is None:
            raise UserError(f"--executor ray needs Ray: {INSTALL}")

    @contextlib.contextmanager
    def started(self, threads: int, task_ref: str) -> Iterator[Executor]:
        """The executor; its processes end with the context, and so does a cluster that it started.

        Args:
            threads: CPU threads of each job.
            task_ref: What will be trained.

        Raises:
            UserError: there is no such cluster, or the task cannot travel to it.
        """
        if self.kind == "local":
            local = self._local(threads, visible_devices())
            try:
                yield local
            finally:
                local.cancel_all()
            return
        from eureka.executors.ray import RayExecutor

        cluster = RayExecutor(
            self.slots,
            threads,
            visible_devices(),
            no_progress_s=self.no_progress_s,
            memory_bytes=self.memory_bytes,
        )
        try:
            cluster.prepare(task_ref)
            yield cluster
        finally:
            cluster.close()

    def _local(self, threads: int, devices: list[str]) -> LocalExecutor:
        return LocalExecutor(
            self.slots, threads, devices, no_progress_s=self.no_progress_s, memory_bytes=self.memory_bytes
        )
