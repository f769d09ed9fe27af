"""What every executor owes a search: one suite, run against each. Fake workers stand for trainings, but for one real one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from eureka.executors import local
from eureka.executors.base import Executor, Job
from eureka.training import Training
from rewards.confine import REQUIRE_VARIABLE
from rewards.library.library import ZERO
from rl.checkpoint import load_policy
from rl.config import config_for
from rl.record import METRICS, RESULT, TrainRequest, read_json, read_metrics, write_request
from tasks.registry import make
from tests.eureka.executor_cases import (
    NO_RAY,
    RAY_MISSING,
    ROOT,
    SLIDER,
    alive,
    endings,
    executor,
    job,
    linux,
    request,
    results_of,
    started,
    starts,
    until,
    zero_graph,
)

pytestmark = linux


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """A Ray cluster that lasts for these tests; its environment for another process that connects to it."""
    from eureka.executors.ray import RayExecutor
    from eureka.executors.ray_cluster import _OURS, _TOKEN

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MY_SECRET", "canary-before-the-cluster")
        owner = started(lambda: RayExecutor(2, 1, ["0", "1"]))
    yield {**_OURS, "RAY_AUTH_TOKEN": _TOKEN, "RAY_ADDRESS": owner.address}
    owner.close()


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.skipif(RAY_MISSING, reason=NO_RAY))])
def kind(request) -> str:
    """The executor under test."""
    if request.param == "ray":
        request.getfixturevalue("cluster")
    return request.param


@pytest.fixture
def make_executor(kind, monkeypatch) -> Iterator:
    """Makes executors of the kind under test, and ends what they left running."""
    monkeypatch.setattr(local, "_GRACE_S", 2.0)
    made: list[Executor] = []

    def one(*args, **options) -> Executor:
        made.append(executor(kind, *args, **options))
        return made[-1]

    yield one
    for each in made:
        each.cancel_all()


def test_a_real_training_gives_the_same_result_everywhere(make_executor, tmp_path):
    """The task is a file, and its checkpoint is one of the task as it lies here."""
    config = config_for(make(str(SLIDER)), {"iterations": 2})
    wanted = TrainRequest(
        run_id="run",
        task=str(SLIDER),
        reward=ZERO,
        reward_graph=zero_graph(),
        config=config,
        seed=0,
        eval_seed=1,
        threads=1,
        attempt="a7",
    )
    write_request(wanted, tmp_path / "run")
    running = make_executor(1, None)
    running.submit(Job("run", tmp_path / "run", attempt="a7"))
    ended = endings(running, within_s=900)["run"]
    assert (ended.ending, ended.exit_code, ended.attempt) == ("finished", 0, "a7"), ended
    result = read_json(tmp_path / "run" / RESULT)
    assert (result["status"], result["attempt"]) == ("ok", "a7")
    assert [line["iteration"] for line in read_metrics(tmp_path / "run" / METRICS)] == [1, 2]
    policy = load_policy(tmp_path / "run" / result["checkpoint"], make(str(SLIDER)))
    assert policy.meta["task_ref"] == str(SLIDER)
    # 8 episodes of an untrained policy, the same numbers whoever ran them.
    assert result["fitness"] == pytest.approx(-0.70524, abs=1e-4)


def test_more_jobs_than_slots_and_no_device_twice(make_executor, tmp_path):
    """Five jobs on two slots: never more than two at once, two that run together have different devices."""
    running = make_executor(2)
    for number in range(5):
        running.submit(job(tmp_path / f"j{number}", "train", seconds=0.4))
    most, ended = 0, {}
    deadline = time.monotonic() + 180
    while len(ended) < 5 and time.monotonic() < deadline:
        most = max(most, len(running.running()))
        ended.update({each.run_id: each for each in running.wait(0.1)})
    assert {(each.ending, each.exit_code) for each in ended.values()} == {("finished", 0)}
    assert sorted(ended) == [f"j{number}" for number in range(5)]
    assert most == 2
    began = starts(tmp_path / "log")
    assert {start["device"] for start in began} == {"0", "1"}
    assert {start["threads"] for start in began} == {"1"}
    for one in began:
        for other in began:
            if one is not other and abs(one["time"] - other["time"]) < 0.4:
                assert one["device"] != other["device"]


def test_metrics_are_here_while_the_training_runs(make_executor, tmp_path):
    """What draws the progress bars reads them from the run folder."""
    running = make_executor(1)
    running.submit(job(tmp_path / "run", "train", seconds=2.0))
    seen: list[int] = []
    while not (ended := running.wait(0.1)):
        seen.append(len(read_metrics(tmp_path / "run" / METRICS)))
    assert ended[0].ending == "finished"
    assert any(0 < count < 20 for count in seen)
    assert [line["iteration"] for line in read_metrics(tmp_path / "run" / METRICS)] == list(range(1, 21))


def test_a_killed_worker_is_a_crash_and_the_others_go_on(make_executor, tmp_path):
    """SIGKILL from outside is told from an exit."""
    running = make_executor(2)
    running.submit(job(tmp_path / "a", "hang"))
    running.submit(job(tmp_path / "b", "train", seconds=1.0))
    until(lambda: running.wait(0.05) or len(starts(tmp_path / "log")) == 2)
    os.kill(next(s["pid"] for s in starts(tmp_path / "log") if s["run_id"] == "a"), signal.SIGKILL)
    ended = endings(running, 2)
    assert (ended["a"].ending, ended["a"].exit_code) == ("crashed", -signal.SIGKILL)
    assert (ended["b"].ending, ended["b"].exit_code) == ("finished", 0)


def test_a_bad_exit_is_told_with_its_last_words(make_executor, tmp_path):
    """Code and standard error reach the search, and so does the log."""
    running = make_executor(1)
    running.submit(job(tmp_path / "run", "exit"))
    ended = endings(running)["run"]
    assert (ended.ending, ended.exit_code) == ("finished", 1)
    assert "the task is not installed" in ended.stderr_tail
    assert "the task is not installed" in (tmp_path / "run" / "worker.log").read_text()
    assert not (tmp_path / "run" / RESULT).exists()


def test_a_time_limit_ends_the_stubborn_and_lets_the_polite_write(make_executor, tmp_path):
    """Asked first, then ended; what a worker writes when it is asked arrives."""
    running = make_executor(2)  # both have to be ready for a signal before the limit, also on a busy machine
    running.submit(job(tmp_path / "stubborn", "stubborn", time_limit_s=3.0))
    running.submit(job(tmp_path / "polite", "polite", time_limit_s=3.0))
    ended = endings(running, 2)
    assert (ended["stubborn"].ending, ended["stubborn"].exit_code) == ("time_limit", -signal.SIGKILL)
    assert (ended["polite"].ending, ended["polite"].exit_code) == ("time_limit", 1)
    assert read_json(tmp_path / "polite" / RESULT)["error"]["type"] == "Terminated"
    assert not any(alive(start["pid"]) for start in starts(tmp_path / "log"))


def test_a_hang_is_ended(make_executor, tmp_path):
    """A worker whose progress stands still."""
    running = make_executor(1, no_progress_s=1.5)
    running.submit(job(tmp_path / "run", "hang"))
    ended = endings(running)["run"]
    assert ended.ending == "no_progress"
    assert "no progress for" in ended.cause
    assert not alive(starts(tmp_path / "log")[0]["pid"])


def test_too_much_memory_is_ended(make_executor, tmp_path):
    """400 MB where 150 are allowed."""
    running = make_executor(1, memory_bytes=150_000_000)
    running.submit(job(tmp_path / "run", "memory"))
    ended = endings(running)["run"]
    assert ended.ending == "out_of_memory"
    assert "GiB" in ended.cause
    assert not alive(starts(tmp_path / "log")[0]["pid"])


def test_a_job_twice_is_refused_and_a_result_of_another_start_is_not_taken(make_executor, tmp_path):
    """The first start leaves a result that is not its own and dies; the second one's counts, once."""
    running = make_executor(2)
    twice = job(tmp_path / "twice", "hang")
    running.submit(twice)
    with pytest.raises(ValueError, match="twice"):
        running.submit(twice)
    running.cancel_all()
    wanted = Training(request("run", tmp_path / "log2", "die first"), tmp_path / "run")
    results, said = results_of(running, [wanted])
    assert [result["fitness"] for result in results] == [2.0]
    assert len(starts(tmp_path / "log2")) == 2
    assert len(said) == 1 and "tried once more" in said[0]


def test_cancelling_ends_everything_and_the_executor_can_go_on(make_executor, tmp_path):
    """No process is left, nothing queued starts later, no end is told; a new job runs."""
    running = make_executor(2)
    for name, do in (("a", "hang"), ("b", "stubborn"), ("c", "train")):
        running.submit(job(tmp_path / name, do, seconds=0.0))
    until(lambda: running.wait(0.05) or len(starts(tmp_path / "log")) == 2)
    running.cancel_all()
    began = starts(tmp_path / "log")
    assert {start["run_id"] for start in began} == {"a", "b"}
    assert not any(alive(start["pid"]) for start in began)
    assert running.wait(0.3) == [] and running.running() == ()
    assert len(starts(tmp_path / "log")) == 2
    running.submit(job(tmp_path / "d", "train", seconds=0.0))
    assert endings(running)["d"].ending == "finished"


def test_a_worker_sees_no_key(make_executor, tmp_path, monkeypatch):
    """Neither those of the search nor, on a cluster, its token."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    monkeypatch.setenv("MY_SECRET", "canary-of-the-search")
    running = make_executor(1)
    running.submit(job(tmp_path / "run", "environ"))
    endings(running)
    environment = next(start["environ"] for start in starts(tmp_path / "log"))
    assert not [text for pair in environment.items() for text in pair if "canary" in text or "TOKEN" in text]
    assert environment["OMP_NUM_THREADS"] == "1"


def test_the_demand_for_a_sandbox_reaches_the_worker(make_executor, tmp_path, monkeypatch):
    """As long as it is made: a node that has served such a search may serve another one."""
    running = make_executor(1)
    monkeypatch.setenv(REQUIRE_VARIABLE, "1")
    running.submit(job(tmp_path / "a", "environ"))
    endings(running)
    monkeypatch.delenv(REQUIRE_VARIABLE)
    running.submit(job(tmp_path / "b", "environ"))
    endings(running)
    assert [start["environ"].get(REQUIRE_VARIABLE) for start in starts(tmp_path / "log")] == ["1", None]


def test_nothing_is_left_of_a_worker_with_children(make_executor, tmp_path):
    """The process that a worker started ends with it; on another machine its folder goes too."""
    running = make_executor(1)
    running.submit(job(tmp_path / "run", "family"))
    assert endings(running)["run"].ending == "finished"
    start = starts(tmp_path / "log")[0]
    until(lambda: not alive(start["child"]), 30.0)
    if Path(start["folder"]) != tmp_path / "run":
        until(lambda: not Path(start["folder"]).exists(), 30.0)
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {"request.json", RESULT, "worker.log"}


def test_a_killed_search_leaves_no_worker_and_goes_on_where_it_was(kind, tmp_path, request):
    """SIGKILL of the driver: its worker ends. The next one uses what was finished and starts the rest anew."""
    variables = os.environ | (request.getfixturevalue("cluster") if kind == "ray" else {})
    log = tmp_path / "log"
    words = [sys.executable, "-m", "tests.eureka.executor_cases", kind, str(tmp_path / "runs"), str(log)]
    # Far longer than a worker is waited for to end: one that lives on shall not end by itself.
    with subprocess.Popen([*words, "600"], cwd=ROOT, env=variables, stdout=subprocess.PIPE, text=True) as search:
        assert search.stdout is not None
        assert search.stdout.readline() == "quick 1.0\n"
        until(lambda: len(starts(log)) == 2)
        search.kill()
    slow = next(start for start in starts(log) if start["run_id"] == "slow")
    until(lambda: not alive(slow["pid"]), 60.0)
    # The same requests; a second start of this worker is a short one.
    done = subprocess.run([*words, "600"], cwd=ROOT, env=variables, timeout=300, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "quick 1.0\nslow 1.0\n"), done.stderr
    assert sorted(start["run_id"] for start in starts(log)) == ["quick", "slow", "slow"]
