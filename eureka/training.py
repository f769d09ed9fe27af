"""Trainings of a search: requests out, processes watched, results in.

A training is known by its run id and folder. One whose result is on disk is never run again; one that was cut off
starts afresh with the same request, so that a resumed search ends where an undisturbed one does.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eureka.executors.base import Ended, Executor, Job
from eureka.listener import Listener
from rl.record import REQUEST, RESULT, TERMINATED, TrainRequest, read_json, read_request, write_request
from tasks.errors import UserError

_TICK_S = 0.5
_GRACE_S = 30.0  # a worker ends itself at its time limit; the executor only ends one that does not
_TRIES = 2  # what the infrastructure broke (a signal, no result written) is tried once more


@dataclass(frozen=True)
class Training:
    """One training wanted."""

    request: TrainRequest
    run_dir: Path

    @property
    def run_id(self) -> str:
        """The request's run id."""
        return self.request.run_id


OnResult = Callable[[Training, dict[str, Any]], None]


def run_trainings(trainings: Sequence[Training], executor: Executor, listener: Listener, on_result: OnResult) -> None:
    """Run trainings, several at once, and hand over each result as it comes.

    Args:
        trainings: Wanted, with unique run ids.
        executor: Where they run.
        listener: Told of starts and ends.
        on_result: Called once per training with the content of its `result.json`; never in the order of the list.
    """
    open_runs: dict[str, Training] = {}
    tries: dict[str, int] = {}
    for training in trainings:
        finished = finished_result(training)
        if finished is not None:
            on_result(training, finished)
            continue
        open_runs[training.run_id] = training
    try:
        for training in open_runs.values():
            _submit(training, executor, tries)
            listener.run_started(training.run_id, training.run_dir, training.request.config.iterations)
        while open_runs:
            for ended in executor.wait(_TICK_S):
                training = open_runs[ended.run_id]
                result = finished_result(training)
                if result is None and ended.ending != "time_limit" and tries[ended.run_id] < _TRIES:
                    listener.say(f"{ended.run_id}: {ended.ending} without a result; it is tried once more")
                    _submit(training, executor, tries)
                    continue
                result = result if result is not None else _result_of_failure(training, ended)
                del open_runs[ended.run_id]
                on_result(training, result)
                listener.run_ended(ended.run_id, result["status"], result["fitness"])
            listener.tick()
    finally:
        if open_runs:
            executor.cancel_all()


def finished_result(training: Training) -> dict[str, Any] | None:
    """The result on disk, if it is there and answers this very request."""
    if not (training.run_dir / RESULT).is_file() or not (training.run_dir / REQUEST).is_file():
        return None
    try:
        result = read_json(training.run_dir / RESULT)
        same = read_request(training.run_dir) == training.request
    except UserError:
        return None  # written by another version, or damaged: trained again
    if not (same and isinstance(result, dict) and result.get("run_id") == training.run_id):
        return None
    # A worker that was told to end says so; that is no verdict on its reward.
    stopped = (result.get("error") or {}).get("type") == TERMINATED
    return None if stopped else result


def _submit(training: Training, executor: Executor, tries: dict[str, int]) -> None:
    if training.run_dir.exists():
        shutil.rmtree(training.run_dir)
    write_request(training.request, training.run_dir)
    limit = training.request.time_limit_s
    tries[training.run_id] = tries.get(training.run_id, 0) + 1
    executor.submit(Job(training.run_id, training.run_dir, None if limit is None else limit + _GRACE_S))


def _result_of_failure(training: Training, ended: Ended) -> dict[str, Any]:
    """What stands in for `result.json` where the worker could not write one."""
    status = "time_limit" if ended.ending == "time_limit" else "error"
    last = ended.stderr_tail.strip().splitlines()
    message = f"the worker {ended.ending} (exit code {ended.exit_code}) without a result; its last line: " + (
        last[-1] if last else "(none)"
    )
    return {
        "schema": 1,
        "run_id": training.run_id,
        "candidate_id": training.request.candidate_id,
        "status": status,
        "error": {"type": "WorkerDied", "message": message, "line": None},
        "fitness": None,
        "fitness_std": None,
    }
