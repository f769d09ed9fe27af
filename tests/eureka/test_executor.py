"""A real worker under the local executor. What it owes whatever runs is in `test_executor_conformance`, with fakes."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from eureka.executors.base import Job
from eureka.executors.local import LocalExecutor
from eureka.executors.processes import all_processes
from rewards.library.library import ZERO
from rl.config import config_for
from rl.record import METRICS, TrainRequest, write_request
from tasks.registry import make
from tests.eureka.executor_cases import SLIDER, alive, endings, until, zero_graph


@pytest.mark.skipif(sys.platform != "linux", reason="signals and /proc")
def test_a_killed_worker_takes_its_evaluator_along(tmp_path, monkeypatch):
    """SIGKILL in the middle of a training: the process that would have measured its fitness ends by itself. The training
    is started where files of a user's have our packages' names."""
    for name in ("rewards.py", "tasks.py", "rl.py"):
        (tmp_path / name).write_text("raise SystemExit('this file is not of eureka-skills')\n")
    monkeypatch.chdir(tmp_path)
    config = config_for(make(str(SLIDER)), {"iterations": 10_000_000})
    request = TrainRequest(
        run_id="run",
        task=str(SLIDER),
        reward=ZERO,
        reward_graph=zero_graph(),
        config=config,
        seed=0,
        eval_seed=1,
        threads=1,
    )
    write_request(request, tmp_path / "run")
    executor = LocalExecutor(1, 1)
    executor.submit(Job("run", tmp_path / "run"))
    try:
        until(lambda: (tmp_path / "run" / METRICS).exists(), 300.0)
        worker = executor._processes["run"].popen.pid
        pids = [process.pid for process in all_processes() if process.group == worker]
        assert len(pids) == 2 and worker in pids
        os.kill(worker, signal.SIGKILL)
        until(lambda: not any(map(alive, pids)))  # nobody has looked after it: the executor would end its group
        ended = endings(executor)["run"]
        assert (ended.ending, ended.exit_code) == ("crashed", -signal.SIGKILL)
    finally:
        executor.cancel_all()
