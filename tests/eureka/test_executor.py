"""The local executor on real worker processes: how they end, what they may see, and that none outlives the search."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eureka.executors.base import Ended, Job
from eureka.executors.local import LocalExecutor
from rewards.library.library import ZERO
from rl.config import config_for
from rl.record import RESULT, TrainRequest, read_json, write_request
from tasks.registry import make
from tests.eureka.scripted import SLIDER

ROOT = Path(__file__).parents[2]
LONG = 100_000  # iterations of a training that does not end by itself within a test


def job(folder: Path, iterations: int, time_limit_s: float | None = None) -> Job:
    """A training of the slider under the zero reward, as a job."""
    config = config_for(make(str(SLIDER)), {"iterations": iterations})
    request = TrainRequest(
        run_id=folder.name, task=str(SLIDER), reward=ZERO, config=config, seed=0, eval_seed=1, threads=1
    )
    write_request(request, folder)
    return Job(folder.name, folder, time_limit_s)


def ending(executor: LocalExecutor, within_s: float = 60.0) -> Ended:
    """The next job that ends."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        ended = executor.wait(1.0)
        if ended:
            assert len(ended) == 1
            return ended[0]
    raise AssertionError("no job ended in time")


def worker_pid(executor: LocalExecutor, run_id: str) -> int:
    return executor._processes[run_id].popen.pid


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_training_finishes_and_two_slots_run_two(tmp_path):
    """Three jobs on two slots: two at once, the third when one is free; all with results."""
    executor = LocalExecutor(2, 1)
    for name in ("a", "b", "c"):
        executor.submit(job(tmp_path / name, 1))
    assert set(executor.running()) == {"a", "b"}
    ended: list[Ended] = []
    deadline = time.monotonic() + 120.0
    while len(ended) < 3 and time.monotonic() < deadline:
        ended.extend(executor.wait(1.0))  # two may end between two looks
    assert {e.run_id for e in ended} == {"a", "b", "c"}
    assert {(e.ending, e.exit_code) for e in ended} == {("finished", 0)}
    assert all(read_json(tmp_path / name / RESULT)["status"] == "ok" for name in "abc")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_sees_no_key(tmp_path, monkeypatch):
    """Variables that hold secrets do not reach the worker; its share of the machine does."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    monkeypatch.setenv("MY_SECRET", "canary")
    executor = LocalExecutor(1, 1)
    executor.submit(job(tmp_path / "run", LONG))
    time.sleep(0.5)  # until the child has become the worker: before, it shows the parent's environment
    environment = Path(f"/proc/{worker_pid(executor, 'run')}/environ").read_bytes()
    executor.cancel_all()
    assert b"canary" not in environment
    assert b"OMP_NUM_THREADS=1" in environment


def test_a_job_that_outlasts_its_limit_is_ended(tmp_path):
    """The limit ends the process, and says so."""
    executor = LocalExecutor(1, 1)
    executor.submit(job(tmp_path / "run", LONG, time_limit_s=1.0))
    assert ending(executor).ending == "time_limit"
    assert executor.running() == ()


@pytest.mark.skipif(sys.platform != "linux", reason="signals and /proc")
def test_a_killed_worker_is_a_crash_and_cancelling_ends_the_rest(tmp_path):
    """SIGKILL from outside is told from an exit; cancel_all leaves no process."""
    executor = LocalExecutor(2, 1)
    executor.submit(job(tmp_path / "a", LONG))
    executor.submit(job(tmp_path / "b", LONG))
    os.kill(worker_pid(executor, "a"), signal.SIGKILL)
    ended = ending(executor)
    assert (ended.run_id, ended.ending, ended.exit_code) == ("a", "crashed", -signal.SIGKILL)
    pid = worker_pid(executor, "b")
    assert alive(pid)
    executor.cancel_all()
    assert not alive(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
def test_a_worker_dies_with_the_search(tmp_path):
    """When the process that started it is killed, the worker is gone too."""
    job(tmp_path / "run", LONG)
    code = (
        "import sys, time; from pathlib import Path; from eureka.executors.base import Job\n"
        "from eureka.executors.local import LocalExecutor\n"
        "e = LocalExecutor(1, 1); e.submit(Job('run', Path(sys.argv[1])))\n"
        "print(e._processes['run'].popen.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as search:
        assert search.stdout is not None
        pid = int(search.stdout.readline())
        time.sleep(0.5)
        assert alive(pid)
        search.kill()
    deadline = time.monotonic() + 5
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pid)
