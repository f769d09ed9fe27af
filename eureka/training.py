"""Trainings of a search: requests out, processes watched, results in.

A training is known by its run id and folder. One whose result is on disk is never run again; one that was cut off
starts afresh with the same request, so that a resumed search ends where an undisturbed one does.

What the infrastructure broke is trained once more, and what a full disk stopped as soon as there is room; neither says
anything of a reward. What a reward broke is a result, and stands. A second failure of the infrastructure is held back
until another training has a verdict: then the machine is well, and the failure is that training's result. Where several
in a row have no verdict, the machine is at fault, and they are left to be trained again. Each start has a name
(`attempt`), and a result that carries another one is not taken.
"""

from __future__ import annotations

import dataclasses
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eureka.disk import Pause
from eureka.executors.base import Ended, Ending, Executor, Job
from eureka.executors.processes import end_orphans
from eureka.listener import Listener
from rl.checkpoint import checkpoint_name
from rl.failures import (
    DEVICE_ERROR,
    DISK_FULL,
    DISK_FULL_EXIT,
    EVALUATOR_DIED,
    INFRASTRUCTURE,
    OUT_OF_MEMORY,
    disk_full,
)
from rl.record import METRICS, REQUEST, RESULT, TrainRequest, read_json, read_request, write_json_atomic, write_request
from tasks.errors import UserError

ATTEMPTS = "attempts.json"
"""Beside a request: why earlier starts of this training ended without a verdict."""
_LOG = "worker.log"  # beside a request: what its worker wrote
_TICK_S = 0.5
_GRACE_S = 30.0  # a worker ends itself at its time limit; the executor only ends one that does not
_TRIES = 2
WITHOUT_VERDICT = 3
"""Trainings in a row that end without a verdict, each tried twice, before the machine is held to be at fault."""
_ERROR_TYPES: dict[Ending, str] = {"no_progress": "NoProgress", "out_of_memory": OUT_OF_MEMORY}


@dataclass(frozen=True)
class Training:
    """One training wanted."""

    request: TrainRequest
    run_dir: Path
    start: Path | None = None
    """Folder of the training that it goes on from, where its request has a `start_iteration`."""

    @property
    def run_id(self) -> str:
        """The request's run id."""
        return self.request.run_id


OnResult = Callable[[Training, dict[str, Any]], None]


class MachineAtFault(UserError):
    """Trainings fail whatever their rewards are. Those concerned have no result, and are trained again at a resume."""


@dataclass(eq=False)
class _Open:
    """A training that has no result yet."""

    training: Training
    attempt: str = ""
    """Name of its latest start."""
    failures: list[dict[str, Any]] = field(default_factory=list)
    """How its earlier starts ended, a full disk not counted."""

    @property
    def has_verdict(self) -> bool:
        """Of one that is over: whether its end says something of its reward."""
        return len(self.failures) < _TRIES


class _Verdicts:
    """Hands over results: a verdict at once, and those of trainings that ended without one when a verdict has come."""

    def __init__(self, listener: Listener, on_result: OnResult, probe: Training | None) -> None:
        self.listener = listener
        self.on_result = on_result
        self.probe = probe
        self.held: list[tuple[Training, dict[str, Any]]] = []
        """Those in a row without a verdict, the latest last; the probe among them."""

    def take(self, over: list[tuple[_Open, dict[str, Any]]]) -> None:
        """Results of trainings that ended together: of these nobody knows the order, so a verdict among them counts as
        the last.

        Raises:
            MachineAtFault: too many in a row have no verdict.
        """
        for run, result in sorted(over, key=lambda each: each[0].has_verdict):
            self.held.append((run.training, result))
            if run.has_verdict:
                self.hand_over()
        if len(self.held) >= WITHOUT_VERDICT:
            training, result = self.held[-1]
            raise MachineAtFault(
                f"{len(self.held)} trainings in a row ended without a verdict on their rewards, each tried {_TRIES} "
                f"times: the machine is at fault. The last one, {training.run_id}: {result['error']['message']:.400} "
                f"(log: {training.run_dir / _LOG})."
            )

    def hand_over(self) -> None:
        """All that was held back."""
        held, self.held = self.held, []
        for training, result in held:
            if training is self.probe:
                shutil.rmtree(training.run_dir, ignore_errors=True)
                continue
            self.on_result(training, result)
            self.listener.run_ended(training.run_id, result["status"], result["fitness"])

    def next_probe(self) -> _Open | None:
        """What to train when all have ended and some are held back: their verdict has to come from somewhere."""
        if not self.held or self.probe is None:
            self.hand_over()
            return None
        self.listener.say(
            f"{len(self.held)} without a verdict at the end; a short training without reward tries the machine"
        )
        return _Open(self.probe)


def run_trainings(
    trainings: Sequence[Training],
    executor: Executor,
    listener: Listener,
    on_result: OnResult,
    probe: Training | None = None,
) -> None:
    """Run trainings, several at once, and hand over each result as it comes.

    Args:
        trainings: Wanted, with unique run ids.
        executor: Where they run.
        listener: Told of starts and ends, of trainings that are tried once more, and of a full disk.
        on_result: Called once per training with the content of its `result.json`; never in the order of the list. Where
            it was tried before, that is under "attempts".
        probe: A short training without a reward, which runs where the last ones have no verdict; else they fail.

    Raises:
        MachineAtFault: `WITHOUT_VERDICT` in a row ended without a verdict; none of them was handed over.
    """
    verdicts = _Verdicts(listener, on_result, probe)
    runs: dict[str, _Open] = {}
    for training in trainings:
        orphans = end_orphans(training.run_dir)
        if orphans is not None:
            listener.say(orphans)
        finished = finished_result(training)
        if finished is not None:
            on_result(training, finished)
            continue
        runs[training.run_id] = _Open(training)
    pause = Pause(listener.say)
    waiting = list(runs.values())
    for run in waiting:
        wanted, run_dir = run.training.request, run.training.run_dir
        listener.run_started(wanted.run_id, run_dir, wanted.config.iterations, wanted.start_iteration)
    try:
        while runs:
            _submit(waiting, executor, pause)
            if pause.active and not executor.running():
                time.sleep(_TICK_S)
            over = []
            for ended in executor.wait(_TICK_S):
                run = runs.get(ended.run_id)
                if run is None or run in waiting or ended.attempt not in ("", run.attempt):
                    continue  # an end that was told twice, or of an earlier start
                result = _verdict(run, ended, listener, pause)
                if result is None:
                    waiting.append(run)
                    continue
                del runs[ended.run_id]
                over.append((run, result))
            verdicts.take(over)
            if not runs and (one_more := verdicts.next_probe()) is not None:
                runs[one_more.training.run_id] = one_more
                waiting.append(one_more)
            listener.tick()
    finally:
        if runs:
            executor.cancel_all()


def finished_result(training: Training) -> dict[str, Any] | None:
    """The result on disk, if it is there, is a verdict on the reward, and answers this very request."""
    try:
        request = read_request(training.run_dir)
    except UserError:
        return None  # none yet, written by another version, or damaged: trained again
    if dataclasses.replace(request, attempt="") != dataclasses.replace(training.request, attempt=""):
        return None
    result = _result_on_disk(training, request.attempt)
    return None if result is None or _error_type(result) in INFRASTRUCTURE else result


def _result_on_disk(training: Training, attempt: str) -> dict[str, Any] | None:
    """`result.json`, if it is of this start of the training; with its earlier starts, if there were any."""
    if not (training.run_dir / RESULT).is_file() or not (training.run_dir / REQUEST).is_file():
        return None
    try:
        result = read_json(training.run_dir / RESULT)
        earlier = read_json(training.run_dir / ATTEMPTS) if (training.run_dir / ATTEMPTS).is_file() else []
    except UserError:
        return None
    if not isinstance(result, dict) or result.get("run_id") != training.run_id:
        return None
    if result.pop("attempt", "") != attempt:
        return None
    return {**result, "attempts": earlier} if earlier else result


def _error_type(result: dict[str, Any]) -> str | None:
    return (result.get("error") or {}).get("type")


def _submit(waiting: list[_Open], executor: Executor, pause: Pause) -> None:
    """Start what waits, as far as the disk has room; each start under a name of its own."""
    while waiting and not pause.lasts():
        run = waiting[0]
        training, run.attempt = run.training, secrets.token_hex(8)
        try:
            if training.run_dir.exists():
                shutil.rmtree(training.run_dir)
            _copy_start(training)
            write_request(dataclasses.replace(training.request, attempt=run.attempt), training.run_dir)
            if run.failures:
                write_json_atomic(training.run_dir / ATTEMPTS, run.failures)
        except OSError as error:
            if not disk_full(error):
                raise
            pause.begin(training.run_id, training.run_dir)
            return
        waiting.pop(0)
        limit = training.request.time_limit_s
        limit = None if limit is None else limit + _GRACE_S
        executor.submit(Job(training.run_id, training.run_dir, limit, run.attempt))


def _copy_start(training: Training) -> None:
    """Put what a training goes on from into its folder: the checkpoint and the metrics so far."""
    if training.start is None:
        return
    training.run_dir.mkdir(parents=True)
    saved = training.start / checkpoint_name(training.request.start_iteration)
    for path in (saved, saved.with_suffix(".json"), training.start / METRICS):
        if path.exists():  # else the worker says which checkpoint it lacks
            shutil.copyfile(path, training.run_dir / path.name)


def _verdict(run: _Open, ended: Ended, listener: Listener, pause: Pause) -> dict[str, Any] | None:
    """The result of a training whose process has ended; None where it is to be started again."""
    training = run.training
    result = _result_on_disk(training, run.attempt)
    kind = None if result is None else _error_type(result)
    if result is not None and kind not in INFRASTRUCTURE:
        return result
    if ended.ending == "disk_full" or ended.exit_code == DISK_FULL_EXIT or kind == DISK_FULL:
        pause.begin(training.run_id, training.run_dir)
        return None
    if ended.ending == "time_limit":
        return _result_of_failure(run, ended, "time_limit", "TimeLimit", "it was ended at its time limit")
    cause = _cause(ended, result if kind in (DEVICE_ERROR, OUT_OF_MEMORY, EVALUATOR_DIED) else None)
    run.failures.append({"attempt": run.attempt, "ending": ended.ending, "cause": cause})
    if len(run.failures) < _TRIES:
        listener.say(f"{training.run_id}: {cause}; it is tried once more")
        return None
    tried = f", {len(run.failures)} times" if len({failure["cause"] for failure in run.failures}) == 1 else ", again"
    return _result_of_failure(run, ended, "error", kind or _ERROR_TYPES.get(ended.ending, "WorkerDied"), cause + tried)


def _cause(ended: Ended, result: dict[str, Any] | None) -> str:
    """Why a training ended without a verdict, in one line."""
    if result is not None:
        return " ".join(str(result["error"]["message"]).split())[:300]
    how = f"the worker {ended.ending} (exit code {ended.exit_code}) without a result"
    return ended.cause or how


def _result_of_failure(run: _Open, ended: Ended, status: str, kind: str, cause: str) -> dict[str, Any]:
    """What stands in for `result.json` where there is no verdict."""
    last = ended.stderr_tail.strip().splitlines()
    message = f"{cause}; the worker's last line: {last[-1] if last else '(none)'}"
    result = {
        "schema": 1,
        "run_id": run.training.run_id,
        "candidate_id": run.training.request.candidate_id,
        "status": status,
        "error": {"type": kind, "message": message, "line": None},
        "fitness": None,
        "fitness_std": None,
    }
    return {**result, "attempts": run.failures} if run.failures else result
