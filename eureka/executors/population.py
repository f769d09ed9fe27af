"""Trainings that can share a simulation, put together into populations (`rl.population`) on another executor.

Whoever submits trainings and waits for them sees one end a training, as without; a population is one job beneath:
`FOLDER/NAME/population.json` names the folders of its trainings, one process trains them all. What comes together
between two waits is shared out evenly over the places of the executor beneath: a generation of 16 makes one population
on one GPU, two on two cores.

A training whose population ended without a result of its own is trained alone when it is submitted again: of what ends
a process (memory, a crash of a library) nobody knows which training brought it about.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

from eureka.executors.base import Ended, Executor, Job
from eureka.executors.processes import end_orphans
from rl.config import to_json
from rl.failures import DISK_FULL_EXIT, disk_full
from rl.population_worker import write_population
from rl.record import SHARED, read_request
from tasks.errors import UserError

FOLDER = "populations"
"""In a search's folder: the jobs that run. Emptied when a search begins, goes on, and as they end."""
LOG = "worker.log"


class PopulationExecutor:
    """Populations on an executor of this machine.

    Args:
        beneath: Runs the jobs; has to start `rl.worker` on folders of this machine.
        folder: Where populations have their folders; what lies there is removed at the first start.
        devices: GPUs among which populations on one are shared out; trainings on the CPU are shared out over the
            slots of `beneath`.
        say: Takes a line for people, of processes that an earlier search left there.
    """

    def __init__(self, beneath: Executor, folder: Path, devices: int = 0, say: Callable[[str], None] = print) -> None:
        self.beneath = beneath
        self.folder = folder
        self.devices = devices
        self._say = say
        self._waiting: list[Job] = []
        self._running: dict[str, list[Job]] = {}
        """Population -> its trainings."""
        self._alone: set[str] = set()
        """Trainings that were in a population which ended without a result of theirs."""
        self._begun = 0

    @property
    def slots(self) -> int:
        """Populations at the same time."""
        return self.beneath.slots

    @property
    def threads_per_slot(self) -> int:
        """CPU threads of a population."""
        return self.beneath.threads_per_slot

    def submit(self, job: Job) -> None:
        """Queue a training; it starts with the next `wait`, together with others."""
        self._waiting.append(job)

    def wait(self, timeout_s: float) -> list[Ended]:
        """Trainings that have ended: all of a population together."""
        not_started = self._start()
        ended = [each for one in self.beneath.wait(0.0 if not_started else timeout_s) for each in self._of_each(one)]
        return not_started + ended

    def running(self) -> tuple[str, ...]:
        """Ids of trainings whose process is alive."""
        running = self.beneath.running()
        return tuple(job for name in running for job in self._names(name))

    def cancel_all(self) -> None:
        """End every process and forget the queue."""
        self._waiting.clear()
        self.beneath.cancel_all()
        self._running.clear()

    def kill_all(self) -> None:
        """End every process at once; asks and waits for none."""
        self.beneath.kill_all()

    def _names(self, name: str) -> list[str]:
        return [job.run_id for job in self._running[name]] if name in self._running else [name]

    def _start(self) -> list[Ended]:
        """Hand what waits to the executor beneath; those that the disk had no room for."""
        if not self._waiting:
            return []
        if not self._begun:
            self._clean()
        waiting, self._waiting, refused = self._waiting, [], []
        for group in self._groups(waiting):
            if len(group) == 1:
                self.beneath.submit(group[0])
                continue
            self._begun += 1
            name = f"population{self._begun}_{group[0].run_id}"
            try:
                write_population(self.folder / name, [job.run_dir for job in group])
            except OSError as error:
                if not disk_full(error):
                    raise
                refused += [Ended(job.run_id, "disk_full", None, "", str(error), job.attempt) for job in group]
                continue
            self._running[name] = group
            limits = [job.time_limit_s for job in group]
            whole = None if None in limits else sum(limit or 0.0 for limit in limits)
            self.beneath.submit(Job(name, self.folder / name, whole))
        return refused

    def _groups(self, jobs: Iterable[Job]) -> list[list[Job]]:
        """Trainings that share a simulation, in the order in which they came."""
        alike: dict[str, list[Job]] = {}
        groups = []
        for job in jobs:
            shared = None if job.run_id in self._alone else _shared(job)
            if shared is None:
                groups.append([job])
            else:
                alike.setdefault(shared, []).append(job)
        for shared, group in alike.items():
            on_gpu = json.loads(shared)["device"] != "cpu"
            parts = min(len(group), max(1, self.devices) if on_gpu else self.beneath.slots)
            ends = [round(len(group) * part / parts) for part in range(parts + 1)]
            groups += [group[start:end] for start, end in pairwise(ends)]
        return groups

    def _of_each(self, one: Ended) -> list[Ended]:
        """The ends of a population's trainings."""
        jobs = self._running.pop(one.run_id, None)
        if jobs is None:
            return [one]
        job_dir = self.folder / one.run_id
        if one.ending != "disk_full" and one.exit_code != DISK_FULL_EXIT:
            self._alone |= {job.run_id for job in jobs}
        for job in jobs:  # what the process said is told beside each training, where people look for it
            if (job_dir / LOG).is_file() and (job_dir / LOG).stat().st_size and not (job.run_dir / LOG).exists():
                try:
                    shutil.copyfile(job_dir / LOG, job.run_dir / LOG)
                except OSError as error:
                    if not disk_full(error):
                        raise
        shutil.rmtree(job_dir, ignore_errors=True)
        return [dataclasses.replace(one, run_id=job.run_id, attempt=job.attempt) for job in jobs]

    def _clean(self) -> None:
        """What a killed search left: its processes first, which would write into folders that are used again."""
        for job_dir in sorted(self.folder.glob("*")):
            orphans = end_orphans(job_dir)
            if orphans is not None:
                self._say(orphans)
            shutil.rmtree(job_dir, ignore_errors=True)


def _shared(job: Job) -> str | None:
    """What a training has in common with those it can share a simulation with; None where its request is none, which
    its worker will say."""
    try:
        request = read_request(job.run_dir)
    except UserError:
        return None
    values: dict[str, Any] = {name: getattr(request, name) for name in SHARED}
    return json.dumps(values | {"config": to_json(request.config)}, sort_keys=True)
