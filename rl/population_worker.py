"""A population as a process: `python -m rl.worker JOB_DIR`, where JOB_DIR holds a population.json.

population.json names the folders of the trainings, each with its request.json; each gets its own result.json, metrics
and checkpoints there, as from a worker of its own. Progress, log and compiled rewards lie in JOB_DIR. Exit code: 0
every training has the status "ok"; 1 some have another one, with a result; 2 a bad request, one line on stderr, and
nothing was trained; 3 the disk is full.

As in a worker of one training, a process that is forked before any request is read measures the fitness, and this one
confines itself before it trains: it writes JOB_DIR and the trainings' folders and nothing else. What ends the process
as a whole (a signal, a device, memory, an error outside of the rewards) ends all trainings that have no result yet, and
says nothing of any of them: the error types of their results are of `rl.failures.INFRASTRUCTURE`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rl import progress
from rl.failures import DISK_FULL_EXIT, INFRASTRUCTURE, POPULATION_FAILED
from rl.record import error_entry, read_json, read_request, write_json_atomic
from rl.worker_common import (
    Terminated,
    confine_worker,
    failure_of,
    log,
    start_evaluator,
    terminate_by_signals,
    with_video,
    write_failure,
)
from tasks.errors import UserError

if TYPE_CHECKING:
    from rl.evaluator import Evaluator
    from rl.population import Member

POPULATION = "population.json"
SCHEMA = 1


def write_population(job_dir: Path, run_dirs: Sequence[Path]) -> Path:
    """Write job_dir/population.json (the folder is made) and return its path. run_dirs: folders of the trainings."""
    job_dir.mkdir(parents=True, exist_ok=True)
    home = job_dir.resolve()
    members = [os.path.relpath(run_dir.resolve(), home) for run_dir in run_dirs]
    return write_json_atomic(job_dir / POPULATION, {"schema": SCHEMA, "members": members})


def read_population(job_dir: Path) -> list[Path]:
    """Folders of the trainings of job_dir/population.json. Raises UserError if it is missing or not as expected."""
    path = job_dir / POPULATION
    data = read_json(path)
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        came = data.get("schema") if isinstance(data, dict) else type(data).__name__
        raise UserError(f"{path}: schema {came!r} is not the supported {SCHEMA}: written by another version.")
    members = data.get("members")
    if not isinstance(members, list) or not members or not all(isinstance(name, str) and name for name in members):
        raise UserError(f"{path}: 'members' is {members!r:.200}, expected a list of folders.")
    return [(job_dir.resolve() / name).resolve() for name in members]


def run_population(job_dir: Path, *, confined: bool = False) -> int:
    """Train the population of `job_dir`; the exit code. With `confined` this process confines itself for good."""
    evaluator = None
    try:
        run_dirs = read_population(job_dir)
        # Forked before any request is read: it knows folders and the task, and no reward.
        evaluator = start_evaluator(run_dirs) if confined else None
        from rl.population import Member, check_members

        members = [Member(read_request(run_dir), run_dir) for run_dir in run_dirs]
        check_members(members)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    terminate_by_signals()
    results = _run(job_dir, members, confined, evaluator)
    statuses = {result["status"] for result in results}
    return DISK_FULL_EXIT if "disk_full" in statuses else 0 if statuses == {"ok"} else 1


def _run(job_dir: Path, members: Sequence[Member], confined: bool, evaluator: Evaluator | None) -> list[dict[str, Any]]:
    """Results of all, in the order of the members; each is written, but on a full disk."""
    from rl.population import train_population

    results: dict[str, dict[str, Any]] = {}
    try:
        progress.start(job_dir)
        if evaluator is not None:
            evaluator.prepare(members[0].request.task)
        requests, folders = [m.request for m in members], [job_dir, *(m.run_dir for m in members)]
        confine_now = partial(confine_worker, requests, folders) if confined else None
        train_population(members, results=results, on_rewards=confine_now, on_damaged=log, evaluator=evaluator)
        return [with_video(m.request, m.run_dir, results[m.request.run_id]) for m in members]
    except (Terminated, Exception) as exception:
        error = failure_of(exception, job_dir)
        if error["type"] not in INFRASTRUCTURE:  # who brought it about is not known
            error = error_entry(POPULATION_FAILED, f"{error['type']}: {error['message']}")
        return [results.get(m.request.run_id) or write_failure(m.request, m.run_dir, error) for m in members]
    finally:
        progress.stop()
        if evaluator is not None:
            evaluator.close()
