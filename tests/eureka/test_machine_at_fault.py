"""Trainings that end without a verdict, one after the other: a failure of each, or the machine's."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eureka.archive import Archive
from eureka.candidate import Status
from eureka.executors import local
from eureka.executors.base import Ended, Job
from eureka.integrity import examine
from eureka.listener import Listener
from eureka.search import run_search
from eureka.search_config import DONE, load_config, start_folder
from eureka.training import MachineAtFault, Training, run_trainings
from rewards.library.library import ZERO
from rl.config import config_for
from rl.record import TrainRequest, make_result, read_request, write_json_atomic
from tasks.registry import make
from tests.eureka.scripted import SLIDER, ScriptedDesigner, facts, slider_config


class Machine:
    """Ends trainings in the order in which they were wanted; those of which `broken` is true die without a word.

    Args:
        broken: Of run ids.
        at_once: Ends that are told together.
    """

    slots, threads_per_slot = 1, 1

    def __init__(self, broken: Callable[[str], bool] = lambda run_id: False, at_once: int = 1) -> None:
        self.broken, self.at_once = broken, at_once
        self.started: list[str] = []
        self._jobs: list[Job] = []

    def submit(self, job: Job) -> None:
        """Queue a job; what is tried once more comes first."""
        again = any(name == job.run_id for name in self.started)
        self._jobs.insert(0 if again else len(self._jobs), job)

    def running(self) -> tuple[str, ...]:
        """None."""
        return ()

    def cancel_all(self) -> None:
        """Forget the queue."""
        self._jobs.clear()

    def wait(self, timeout_s: float) -> list[Ended]:
        """End some."""
        jobs, self._jobs = self._jobs[: self.at_once], self._jobs[self.at_once :]
        return [self._end(job) for job in jobs]

    def _end(self, job: Job) -> Ended:
        self.started.append(job.run_id)
        if self.broken(job.run_id):
            return Ended(job.run_id, "crashed", -11, f"{job.run_id}: no driver\n", attempt=job.attempt)
        request = read_request(job.run_dir)
        told: dict[str, Any] = {"status": "ok", "fitness": 1.0, "fitness_std": 0.5, "fitness_unit": "m"}
        if job.run_id.startswith("reward"):
            told = {"status": "reward_error", "error": {"type": "ValueError", "message": "no", "line": 3}}
        write_json_atomic(job.run_dir / "result.json", make_result(request, **told))
        return Ended(job.run_id, "time_limit" if job.run_id.startswith("late") else "finished", 0, "")


def dead(run_id: str) -> bool:
    """Whether a run's name says that it dies."""
    return run_id.startswith("x")


class Case:
    """Trainings on a machine: what was handed over, and in which order things were told."""

    def __init__(self, folder: Path, broken: Callable[[str], bool] = dead, at_once: int = 1) -> None:
        self.folder, self.machine = folder, Machine(broken, at_once)
        self.told: list[tuple[str, str]] = []
        self.config = config_for(make(str(SLIDER)), {"iterations": 1})

    def training(self, name: str) -> Training:
        request = TrainRequest(run_id=name, task=str(SLIDER), reward=ZERO, config=self.config, seed=0, eval_seed=1)
        return Training(request, self.folder / name)

    def run(self, names: str, probe: str | None = None) -> list[tuple[str, str]]:
        trainings = [self.training(name) for name in names.split()]
        tried = None if probe is None else self.training(probe)
        run_trainings(
            trainings,
            self.machine,
            Listener(),
            lambda training, result: self.told.append((training.run_id, result["status"])),
            tried,
        )
        return self.told


def test_one_or_two_failures_are_their_own_once_another_has_a_verdict(tmp_path):
    """In the order of their ends, with a verdict after them: each tried twice, and its result an error as ever."""
    case = Case(tmp_path)
    told = case.run("x1 x2 ok1 x3 x4 reward1 x5 ok2")
    assert told == [
        ("x1", "error"), ("x2", "error"), ("ok1", "ok"), ("x3", "error"), ("x4", "error"), ("reward1", "reward_error"),
        ("x5", "error"), ("ok2", "ok"),
    ]  # fmt: skip
    assert {name: case.machine.started.count(name) for name in ("x1", "x5", "ok1", "reward1")} == {
        "x1": 2, "x5": 2, "ok1": 1, "reward1": 1
    }  # fmt: skip


def test_no_failure_is_handed_over_before_a_verdict(tmp_path):
    """Until then it is not known whose it is; a search that is stopped meanwhile has it to do again."""
    seen: list[list[tuple[str, str]]] = []

    class Looking(Machine):
        def wait(self, timeout_s: float) -> list[Ended]:
            seen.append(list(case.told))
            return super().wait(timeout_s)

    case = Case(tmp_path)
    case.machine = Looking(dead)
    case.run("ok1 x1 x2 ok2")
    assert [len(told) for told in seen] == [0, 1, 1, 1, 1, 1], "before each end"


def test_three_in_a_row_are_the_machines(tmp_path):
    """None of the three has a result; one line says what happened, the last cause and where more is said."""
    case = Case(tmp_path)
    with pytest.raises(MachineAtFault) as stop:
        case.run("x1 x2 ok1 x3 x4 x5 ok2")
    assert case.told == [("x1", "error"), ("x2", "error"), ("ok1", "ok")]
    assert "ok2" not in case.machine.started
    line = str(stop.value)
    assert "\n" not in line and line.startswith("3 trainings in a row ended without a verdict")
    assert (
        "x5: the worker crashed (exit code -11) without a result, 2 times; the worker's last line: x5: no driver"
        in line
    )
    assert str(tmp_path / "x5" / "worker.log") in line


def test_what_had_a_result_before_is_not_held_against_the_machine_nor_for_it(tmp_path):
    """Results that a resumed search finds say nothing of the machine as it is now."""
    Case(tmp_path).run("ok1 ok2")
    case = Case(tmp_path)
    with pytest.raises(MachineAtFault):
        case.run("x1 ok1 x2 ok2 x3")
    assert case.told == [("ok1", "ok"), ("ok2", "ok")]


def test_ends_that_are_told_together_have_no_order(tmp_path):
    """Three that died and one that did not, within one look: the machine trains. All four die at the first look, and are
    told the other way round at the second."""
    case = Case(tmp_path, at_once=4)
    case.machine.broken = lambda run_id: dead(run_id) or case.machine.started.count("ok1") == 1
    told = case.run("x1 x2 x3 ok1")
    assert case.machine.started[4] == "ok1" and sorted(told) == [
        ("ok1", "ok"),
        ("x1", "error"),
        ("x2", "error"),
        ("x3", "error"),
    ]


def test_failures_at_the_end_are_settled_by_a_probe(tmp_path):
    """With nothing left that could have a verdict, a training without reward brings one, and leaves nothing."""
    case = Case(tmp_path)
    assert case.run("ok1 x1", "ok_probe") == [("ok1", "ok"), ("x1", "error")]
    assert case.machine.started == ["ok1", "x1", "x1", "ok_probe"]
    assert not (tmp_path / "ok_probe").exists()
    well = Case(tmp_path / "well")
    well.run("x1 ok1", "ok_probe")
    assert "ok_probe" not in well.machine.started, "a verdict was there"


@pytest.mark.parametrize(("names", "probes"), [("x1", 4), ("x1 x2", 2)])
def test_a_probe_that_dies_too_counts(tmp_path, names, probes):
    """Up to three in a row."""
    case = Case(tmp_path)
    with pytest.raises(MachineAtFault, match="x_probe"):
        case.run(names, "x_probe")
    assert case.told == [] and case.machine.started.count("x_probe") == probes


def test_without_a_probe_failures_at_the_end_stand(tmp_path):
    assert Case(tmp_path).run("ok1 x1 x2") == [("ok1", "ok"), ("x1", "error"), ("x2", "error")]


# A search


CONFIG = {"samples": 3, "generations": 2, "halving": "on", "confirm": 1, "confirm_seeds": 2}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, Any]:
    """What a search finds on a machine that is well."""
    folder = start_folder(slider_config(**CONFIG), tmp_path_factory.mktemp("undisturbed") / "search")
    run_search(folder, load_config(folder), ScriptedDesigner(), Machine())
    return facts(folder)


@pytest.mark.parametrize(
    ("broken", "kept"),
    [
        (lambda name: True, []),
        (lambda name: not name.endswith("rung1"), []),
        (lambda name: name.endswith(("_s1", "_s2", "probe")), ["g01_c00"]),
        (lambda name: name.startswith(("final", "human", "sparse")), ["g01_c00", "g02_c00"]),
    ],
    ids=["from the start", "after the first rung", "at further seeds", "at the finals"],
)
def test_a_search_stops_and_goes_on_when_the_machine_is_well(undisturbed, tmp_path, broken, kept):
    """Candidates stay to be trained, nobody is asked for more, and the end is that of a search on a well machine."""
    folder = start_folder(slider_config(**CONFIG), tmp_path / "search")
    first, designer = Machine(broken), ScriptedDesigner()
    with pytest.raises(MachineAtFault):
        run_search(folder, load_config(folder), designer, first)
    archive = Archive(folder / "search.db", create=False)
    candidates = archive.candidates()
    assert archive.meta("state") == "stopped" and Status.FAILED not in {c.status for c in candidates}
    assert [c.candidate_id for c in candidates if c.status is Status.TRAINED] == kept
    assert max(c.generation for c in candidates) == max(1, len(kept)), "no further generation was begun"
    had_ended = {run.run_id for run in archive.runs()}
    archive.close()
    assert examine(folder) == [] and not (folder / DONE).exists()

    second, asked = Machine(), len(designer.asked)
    run_search(folder, load_config(folder), designer, second)
    ids = [ask.ask_id for ask in designer.asked]
    assert len(ids) == len(set(ids)) and len(ids) - asked == (0 if len(kept) == 2 else asked)
    assert not had_ended & set(second.started), "what had ended was trained again"
    assert "probe" not in second.started
    assert facts(folder) == undisturbed
    assert examine(folder) == []


def test_the_command_says_it_in_one_line(eureka, monkeypatch, tmp_path):
    """With real processes: how to go on, an exit code, and no page of failures."""
    complaint = "import sys; sys.exit('the driver is gone')"
    monkeypatch.setattr(local, "WORKER", (sys.executable, "-S", "-c", complaint))
    words = ("search", SLIDER, "-k", 3, "-n", 5, "--designer", "evolution", "--out", tmp_path / "s", "--no-video")
    code, _, said = eureka(*words)
    last = said.strip().splitlines()[-1]
    assert code != 0 and "3 trainings in a row ended without a verdict" in last and "the driver is gone" in last
    assert last.endswith(f"eureka search --resume {tmp_path / 's'}") and f"{tmp_path / 's'}{os.sep}candidates" in last
    archive = Archive(tmp_path / "s" / "search.db", create=False, read_only=True)
    assert [str(c.status) for c in archive.candidates()] == ["training"] * 3
    archive.close()
    assert dataclasses.asdict(load_config(tmp_path / "s"))["samples"] == 3
