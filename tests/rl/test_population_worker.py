"""A population as a process: its folders, what it may reach, and how it ends."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rewards.confine import REQUIRE_VARIABLE, WORKER
from rewards.probe import confinement_here
from rl import population_worker, progress, worker
from rl.failures import DISK_FULL_EXIT, INFRASTRUCTURE, POPULATION_FAILED
from rl.population_worker import POPULATION, read_population, run_population, write_population
from rl.record import RESULT, read_metrics, write_request
from tasks.errors import UserError
from tests.rl.conftest import SLIDER

ROOT = Path(__file__).parents[2]
CONFINED = sys.platform == "linux" and not confinement_here(WORKER).missing

LOOKING = '''

class Looking(Slider):
    """Its fitness is 0 where it is computed in a process that holds no reward, cannot read a file outside and cannot
    write its own run folder; else it tells on it."""

    name = "looking"
    fitness_failed = 0.0

    def fitness(self, signals):
        """What this process holds, and what it reaches."""
        import gc, os
        from pathlib import Path
        held = [type(o).__name__ for o in gc.get_objects() if type(o).__name__ in ("RewardFunction", "TrainRequest")]
        seen = []
        for place in (Path(os.environ["OUTSIDE"]), Path(os.environ["OWN"])):
            try:
                place.write_text("x") if place.name == "own" else place.read_text()
                seen.append(place.name)
            except OSError:
                pass
        return torch.full_like(signals["mass_position"][:, 0], float(len(held) + len(seen)))
'''


@pytest.fixture(autouse=True)
def _signals_stay(monkeypatch):
    """A population that runs in this process leaves its signal handlers alone."""
    monkeypatch.setattr(population_worker, "terminate_by_signals", lambda: None)


@pytest.fixture
def population(make_request, tmp_path):
    """(job folder, run folders) of three short trainings, ready to run."""

    def make(overrides=None, **fields):
        run_dirs = [tmp_path / "candidates" / f"c{k}" / "s1" for k in range(3)]
        for k, run_dir in enumerate(run_dirs):
            values = {"run_id": f"c{k}", "candidate_id": f"c{k}", "attempt": f"start{k}", **fields}
            write_request(make_request({"iterations": 2, **(overrides or {})}, **values), run_dir)
        write_population(tmp_path / "jobs" / "one", run_dirs)
        return tmp_path / "jobs" / "one", run_dirs

    return make


def results(run_dirs):
    return [json.loads((run_dir / RESULT).read_text()) for run_dir in run_dirs]


def test_a_process_of_its_own(population, tmp_path):
    """Silent, every result in its folder with its start's name; rewards are where the training is, not where the
    fitness is measured (there the task's fitness finds neither, and reaches nothing)."""
    task = tmp_path / "task" / "looking.py"
    task.parent.mkdir()
    task.write_text(Path(SLIDER).read_text() + LOOKING)
    (tmp_path / "outside").write_text("canary")
    job_dir, run_dirs = population(task=f"{task}:Looking")
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"]}
    environment |= {"OUTSIDE": str(tmp_path / "outside"), "OWN": str(run_dirs[0] / "own")}
    if CONFINED:
        environment[REQUIRE_VARIABLE] = "1"
    words = [sys.executable, "-m", "rl.worker", str(job_dir)]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for k, result in enumerate(results(run_dirs)):
        assert (result["status"], result["run_id"], result["attempt"]) == ("ok", f"c{k}", f"start{k}")
        assert result["eval"]["episodes"] == 8
        if CONFINED:
            assert result["fitness"] == 0.0
        lines = read_metrics(run_dirs[k] / "metrics.jsonl")
        assert len(lines) == 2
        assert (run_dirs[k] / result["checkpoint"]).is_file()
    if CONFINED:  # the training holds both (of three), and writes the trainings' folders, and none beside them
        assert lines[1]["fitness"] is None or lines[1]["fitness"] >= 1.0
    assert progress.read(job_dir).startswith("evaluation ")


def test_folders_by_name(population, tmp_path):
    job_dir, run_dirs = population()
    assert json.loads((job_dir / POPULATION).read_text())["members"][0] == "../../candidates/c0/s1"
    assert read_population(job_dir) == run_dirs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ('{"schema": 2, "members": ["a"]}', "schema 2"),
        ('{"schema": 1, "members": []}', "'members' is []"),
        ('{"schema": 1, "members": [3]}', "'members' is [3]"),
        ('{"schema": 1, "members": ["nowhere"]}', "nowhere/request.json: no such file"),
    ],
)
def test_a_bad_population_is_one_line(tmp_path, capsys, text, message):
    (tmp_path / POPULATION).write_text(text)
    assert worker.main([str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_trainings_that_cannot_share_are_one_line_and_nothing_is_trained(population, make_request, capsys):
    job_dir, run_dirs = population()
    write_request(make_request({"iterations": 3}, run_id="c1"), run_dirs[1])
    assert run_population(job_dir) == 2
    err = capsys.readouterr().err
    assert "'config'" in err and err.count("\n") == 1
    assert not any((run_dir / RESULT).exists() for run_dir in run_dirs)
    assert worker.main([str(job_dir), "--resume"]) == 2


def test_one_that_is_refused_makes_the_exit_code(population, make_request):
    job_dir, run_dirs = population()
    write_request(make_request({"iterations": 2}, run_id="c1", reward="import os"), run_dirs[1])
    assert run_population(job_dir) == 1
    assert [result["status"] for result in results(run_dirs)] == ["ok", "rejected", "ok"]


def broken(error):
    """In place of training: the first of three has its result, then an error comes."""

    def train_population(members, *, results, **_):
        first = members[0].request
        results[first.run_id] = {"run_id": first.run_id, "status": "ok"}
        (members[0].run_dir / RESULT).write_text(json.dumps(results[first.run_id]))
        raise error

    return train_population


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ZeroDivisionError("in the middle"), POPULATION_FAILED),
        (UserError("the fitness is not finite"), POPULATION_FAILED),
        (RuntimeError("CUDA error: an illegal memory access"), "DeviceError"),
        (worker.Terminated("SIGTERM"), "Terminated"),
    ],
)
def test_what_ends_the_process_says_nothing_of_a_single_reward(population, monkeypatch, capsys, error, kind):
    job_dir, run_dirs = population()
    monkeypatch.setattr("rl.population.train_population", broken(error))
    assert run_population(job_dir) == 1
    told = results(run_dirs)
    assert [result["status"] for result in told] == ["ok", "error", "error"]
    assert told[1]["error"] == told[2]["error"] and told[1]["error"]["type"] == kind and kind in INFRASTRUCTURE
    assert str(error) in told[1]["error"]["message"]
    assert capsys.readouterr().err.count("Traceback") <= 1


def test_a_full_disk(population, monkeypatch):
    job_dir, run_dirs = population()
    monkeypatch.setattr("rl.population.train_population", broken(OSError(28, "No space left on device")))
    assert run_population(job_dir) == DISK_FULL_EXIT
    assert [result["status"] for result in results(run_dirs)] == ["ok", "disk_full", "disk_full"]


def test_videos_are_of_those_that_trained(population, make_request, monkeypatch):
    job_dir, run_dirs = population()
    wanted = make_request({"iterations": 2}, run_id="c1", video=True)
    write_request(wanted, run_dirs[1])
    write_request(dataclasses.replace(wanted, run_id="c2", reward="import os"), run_dirs[2])
    made = []
    monkeypatch.setattr(
        "rl.worker_common._record_video", lambda request, *_: made.append(request.run_id) or "video.mp4"
    )
    assert run_population(job_dir) == 1
    assert made == ["c1"]
    assert [result["video"] for result in results(run_dirs)] == [None, "video.mp4", None]


def test_its_folders_are_all_that_it_may_write(population, make_request, monkeypatch):
    granted = {}
    monkeypatch.setattr("rewards.confine.confine", lambda _, **grants: granted.update(grants))
    job_dir, run_dirs = population()
    requests = [make_request(run_id=f"c{k}", video=k == 2) for k in range(3)]
    population_worker.confine_worker(requests, [job_dir, *run_dirs])
    assert granted["writable"] == [job_dir, *run_dirs]
    assert granted["programs"] is True and granted["gpu"] is False
