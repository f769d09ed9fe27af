"""Trainings put together into populations: who shares one, how it ends for each, and a whole search with them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from eureka.archive import Archive
from eureka.executors import population
from eureka.executors.base import Ended, Job
from eureka.executors.population import PopulationExecutor
from eureka.listener import Listener
from eureka.search import run_search
from eureka.search_config import load_config, start_folder
from rl import worker
from rl.config import config_for
from rl.failures import DISK_FULL_EXIT
from rl.population_worker import POPULATION, read_population, run_population
from rl.record import TrainRequest, read_request, write_request
from tasks import registry
from tests.eureka.scripted import SLIDER, ScriptedDesigner, slider_config
from tests.rl.conftest import HUMAN_REWARD


class Beneath:
    """An executor that runs nothing: tells what it was given and, when asked, that jobs have ended."""

    threads_per_slot = 1

    def __init__(self, slots: int = 1) -> None:
        self.slots, self.jobs, self.ends, self.ended_all = slots, [], [], []

    def submit(self, job: Job) -> None:
        assert job.run_id not in [j.run_id for j in self.jobs]
        self.jobs.append(job)

    def wait(self, timeout_s: float) -> list[Ended]:
        told, self.ends = self.ends, []
        return told

    def running(self) -> tuple[str, ...]:
        return tuple(job.run_id for job in self.jobs)

    def cancel_all(self) -> None:
        self.ended_all.append("cancelled")

    def kill_all(self) -> None:
        self.ended_all.append("killed")

    def taken(self) -> list[list[str]]:
        """Run ids of each job since the last look."""
        jobs, self.jobs = self.jobs, []
        return [members(job) for job in jobs]


def members(job: Job) -> list[str]:
    if not (job.run_dir / POPULATION).exists():
        return [job.run_id]
    return [read_request(run_dir).run_id for run_dir in read_population(job.run_dir)]


@pytest.fixture
def job(tmp_path):
    """Makes a job with a request on the disk."""

    def make(name: str, limit_s: float | None = 10.0, overrides=None, **fields) -> Job:
        task = registry.make(str(SLIDER))
        values = {
            "run_id": name,
            "task": str(SLIDER),
            "reward": HUMAN_REWARD,
            "seed": 1,
            "eval_seed": 1001,
            "threads": 1,
        }
        request = TrainRequest(**(values | fields), config=config_for(task, overrides))
        write_request(request, tmp_path / "candidates" / name)
        return Job(name, tmp_path / "candidates" / name, limit_s, f"start of {name}")

    return make


@pytest.fixture
def executor(tmp_path):
    def make(slots: int = 1, devices: int = 0) -> PopulationExecutor:
        return PopulationExecutor(Beneath(slots), tmp_path / "populations", devices)

    return make


@pytest.mark.parametrize(
    ("slots", "devices", "fields", "groups"),
    [
        (1, 0, {}, [["a", "b", "c", "d", "e"]]),
        (2, 0, {}, [["a", "b"], ["c", "d", "e"]]),
        (2, 4, {}, [["a", "b"], ["c", "d", "e"]]),
        (8, 2, {"device": "cuda"}, [["a", "b"], ["c", "d", "e"]]),
        (8, 0, {"device": "cuda"}, [["a", "b", "c", "d", "e"]]),
        (8, 0, {}, [["a"], ["b"], ["c"], ["d"], ["e"]]),
    ],
)
def test_who_shares_a_population(executor, job, slots, devices, fields, groups):
    """One for each place: a slot of the CPU, or a GPU."""
    told = executor(slots, devices)
    for name in "abcde":
        told.submit(job(name, **fields))
    assert told.beneath.jobs == []
    assert told.wait(0.0) == [] and told.beneath.taken() == groups


def test_what_differs_trains_apart(executor, job):
    told = executor()
    for name, limit_s, overrides, fields in (
        ("a", 10.0, None, {}),
        ("b", 10.0, {"iterations": 9}, {}),
        ("c", 2.5, None, {"seed": 7, "candidate_id": "other"}),
        ("d", 10.0, {"iterations": 9}, {}),
        ("e", None, {"iterations": 9}, {"start_iteration": 2}),
    ):
        told.submit(job(name, limit_s, overrides, **fields))
    broken = job("f")
    (broken.run_dir / "request.json").write_text("{")
    told.submit(broken)
    told.wait(0.0)
    limits = [job.time_limit_s for job in told.beneath.jobs]
    assert limits == [10.0, 12.5, 20.0, None]
    assert sorted(told.running()) == list("abcdef")
    assert told.beneath.jobs[0] is broken
    assert [members(j) for j in told.beneath.jobs if j is not broken] == [["a", "c"], ["b", "d"], ["e"]]


def test_the_end_of_a_population_is_one_of_each(executor, job):
    told = executor()
    for name in "ab":
        told.submit(job(name))
    told.wait(0.0)
    (one,) = told.beneath.jobs
    (one.run_dir / "worker.log").write_text("what it said\n")
    told.beneath.ends = [Ended(one.run_id, "finished", 1, "what it said\n", "", one.attempt)]
    ends = told.wait(0.0)
    assert [(e.run_id, e.attempt, e.ending, e.exit_code) for e in ends] == [
        ("a", "start of a", "finished", 1),
        ("b", "start of b", "finished", 1),
    ]
    assert (job("x").run_dir.parent / "b" / "worker.log").read_text() == "what it said\n"
    assert not one.run_dir.exists()


@pytest.mark.parametrize(
    ("ending", "exit_code", "again"),
    [
        ("out_of_memory", None, [["a"], ["b"]]),
        ("finished", 1, [["a"], ["b"]]),
        ("finished", DISK_FULL_EXIT, [["a", "b"]]),
        ("disk_full", None, [["a", "b"]]),
    ],
)
def test_what_is_tried_again_is_alone(executor, job, ending, exit_code, again):
    """But for a full disk, which is nobody's fault."""
    told, jobs = executor(), [job("a"), job("b")]
    for each in jobs:
        told.submit(each)
    told.wait(0.0)
    (one,) = told.beneath.jobs
    told.beneath.taken()
    told.beneath.ends = [Ended(one.run_id, ending, exit_code, "")]
    assert len(told.wait(0.0)) == 2
    for each in jobs:
        told.submit(each)
    told.wait(0.0)
    assert told.beneath.taken() == again


def test_a_full_disk_before_it_starts(executor, job, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(population, "write_population", full)
    told = executor()
    for name in "ab":
        told.submit(job(name))
    assert [(e.run_id, e.ending, e.attempt) for e in told.wait(5.0)] == [
        ("a", "disk_full", "start of a"),
        ("b", "disk_full", "start of b"),
    ]
    assert told.running() == () and told.beneath.jobs == []


def test_what_a_killed_search_left_goes_first(executor, job, tmp_path, monkeypatch):
    left = tmp_path / "populations" / "population1_a"
    left.mkdir(parents=True)
    seen = []
    monkeypatch.setattr(population, "end_orphans", lambda place: seen.append(place) or f"{place}: ended worker 7")
    said: list[str] = []
    told = PopulationExecutor(Beneath(), tmp_path / "populations", say=said.append)
    told.submit(job("a"))
    assert left.exists()
    told.submit(job("b"))
    told.wait(0.0)
    assert seen == [left] and said == [f"{left}: ended worker 7"]
    assert [path.name for path in (tmp_path / "populations").iterdir()] == ["population1_a"]
    assert (left / POPULATION).exists()
    told.cancel_all()
    told.kill_all()
    assert told.beneath.ended_all == ["cancelled", "killed"]


class InProcess(Beneath):
    """Trains jobs as workers do, in this process; the second population dies on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[str]] = []

    def wait(self, timeout_s: float) -> list[Ended]:
        if not self.jobs:
            return []
        job = self.jobs.pop()
        self.seen.append(members(job))
        if len(self.seen) == 2 and len(self.seen[-1]) > 1:
            return [Ended(job.run_id, "crashed", -11, "Segmentation fault", "", job.attempt)]
        code = run_population(job.run_dir) if len(self.seen[-1]) > 1 else worker.main([str(job.run_dir)])
        return [Ended(job.run_id, "finished", code, "", "", job.attempt)]


def test_a_whole_search(tmp_path, monkeypatch):
    """Two generations with halving and finals: trainings go through populations, rung after rung; the population that
    crashes is trained again, one by one; and the archive is that of any search."""
    monkeypatch.setattr(worker, "terminate_by_signals", lambda: None)
    monkeypatch.setattr("rl.population_worker.terminate_by_signals", lambda: None)
    config = slider_config(samples=4, halving="on", population=True, final_seeds=2)
    folder = start_folder(config, tmp_path / "search")
    assert load_config(folder).population
    beneath, said = InProcess(), []

    class Listening(Listener):
        def say(self, text: str) -> None:
            said.append(text)

    executor = PopulationExecutor(beneath, folder / "populations", say=said.append)
    result = run_search(folder, load_config(folder), ScriptedDesigner(), executor, Listening())
    assert result.best is not None and result.fitness["final"].seeds == 2
    first, second, *alone = beneath.seen
    assert first == [f"g01_c0{k}_s0_rung1" for k in range(4)]
    assert len(second) == 2 and sorted(alone[:2]) == [[name] for name in second], "it crashed"
    assert max(len(names) for names in alone) >= 4, "the finals share one"
    assert not list((folder / "populations").iterdir())
    archive = Archive(folder / "search.db", create=False, read_only=True)
    runs = archive.runs("candidate") + archive.runs("rung")
    assert all(run.result["status"] == "ok" for run in runs) and len(runs) > 6
    archive.close()


def test_not_on_a_cluster(eureka):
    code, _, err = eureka("search", str(SLIDER), "--population", "--executor", "ray", "--designer", "evolution")
    assert code != 0 and "--population trains in processes of this machine" in err and err.count("\n") == 1
    assert not Path("runs").exists()


def test_a_request_that_changes_its_population_is_one(job):
    """Two requests that differ in what a population shares have different keys; in what it does not, the same."""
    one = job("a")
    request = read_request(one.run_dir)
    for name, changed in {
        "config": dataclasses.replace(request.config, num_envs=31),
        "threads": 2,
        "start_iteration": 1,
        "device": "cuda",
        "backend": "warp",
        "randomize": True,
        "task": "ant-run",
    }.items():
        write_request(dataclasses.replace(request, **{name: changed}), one.run_dir)
        other = population._shared(one)
        write_request(request, one.run_dir)
        assert None is not other != population._shared(one), name
    write_request(dataclasses.replace(request, seed=9, run_id="b", attempt="x", video=True), one.run_dir)
    assert population._shared(one) == population._shared(job("a"))
