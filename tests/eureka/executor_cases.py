"""What the conformance tests of executors share: fake workers, jobs, and a search's part of it in a process of its own.

The process is `python -m tests.eureka.executor_cases KIND FOLDER LOG SECONDS`: two trainings by `run_trainings`, one
that ends at once and one that takes SECONDS. It prints a line for each result.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eureka.executors.base import Ended, Executor, Job
from eureka.executors.local import LocalExecutor
from eureka.listener import Listener
from eureka.training import Training, run_trainings
from rewards.function import reward_graph
from rewards.library.library import ZERO
from rl.config import config_for
from rl.record import TrainRequest, write_request
from tasks.errors import UserError
from tasks.registry import make

ROOT = Path(__file__).parents[2]
SLIDER = ROOT / "tests" / "data" / "slider.py"
FAKE = (sys.executable, str(ROOT / "tests" / "data" / "fake_worker.py"))
DEVICES = ["0", "1"]
RAY_MISSING = importlib.util.find_spec("ray") is None
NO_RAY = "Ray is not installed: pip install 'eureka-skills[ray]'"
linux = pytest.mark.skipif(sys.platform != "linux", reason="signals, /proc and the parent-death signal")


def executor(kind: str, slots: int = 2, command: tuple[str, ...] | None = FAKE, **limits: Any) -> Executor:
    """An executor of two devices under test; one of Ray uses the cluster that this process is connected to."""
    if kind == "local":
        return LocalExecutor(slots, 1, DEVICES, worker_command=command, **limits)
    from eureka.executors.ray import RayExecutor

    return RayExecutor(slots, 1, DEVICES, worker_command=command, **limits)


def started(start: Callable[[], Any], tries: int = 3) -> Any:
    """What `start` gives. A cluster that has not come up within Ray's own 30 s, on a machine that is very busy, is
    started again."""
    while True:
        try:
            return start()
        except UserError as error:
            tries -= 1
            if not tries or "timed out during startup" not in str(error):
                raise


@functools.cache
def zero_graph() -> dict[str, Any]:
    """The graph of ZERO for the slider, as the gate leaves it: a worker without one starts a child that traces the text."""
    return reward_graph(ZERO, make(str(SLIDER)).signal_table)


def request(run_id: str, log: Path, do: str, **more: Any) -> TrainRequest:
    """A request whose reward tells the fake worker what to do."""
    return TrainRequest(
        run_id=run_id,
        task="cartpole-balance",
        reward=json.dumps({"do": do, "log": str(log), **more}),
        config=config_for(make("cartpole-balance"), {"iterations": 1}),
        seed=0,
        eval_seed=1,
        threads=1,
    )


def job(folder: Path, do: str, time_limit_s: float | None = None, **more: Any) -> Job:
    """A job in a new run folder; its log is the file `log` beside it."""
    write_request(request(folder.name, folder.parent / "log", do, **more), folder)
    return Job(folder.name, folder, time_limit_s)


def starts(log: Path) -> list[dict[str, Any]]:
    """What the workers noted at their starts."""
    if not log.exists():
        return []
    return [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]


def until(condition: Callable[[], Any], within_s: float = 180.0) -> Any:
    """The condition's value as soon as it is true."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return value


def endings(running: Executor, count: int = 1, within_s: float = 180.0) -> dict[str, Ended]:
    """The next jobs that end, by id; each may end once."""
    found: dict[str, Ended] = {}
    deadline = time.monotonic() + within_s
    while len(found) < count:
        assert time.monotonic() < deadline, f"only {sorted(found)} ended in time"
        for ended in running.wait(0.5):
            assert ended.run_id not in found
            found[ended.run_id] = ended
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Lines(Listener):
    """Keeps what a search says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        """A line for people."""
        self.lines.append(text)


def results_of(running: Executor, trainings: list[Training]) -> tuple[list[dict[str, Any]], list[str]]:
    """The results of trainings in the order they came, and what was said."""
    found: list[dict[str, Any]] = []
    listener = Lines()
    run_trainings(trainings, running, listener, lambda training, result: found.append(result))
    return found, listener.lines


def main(kind: str, folder: Path, log: Path, seconds: float) -> None:
    """See the module."""
    wanted = [
        Training(request("quick", log, "train", seconds=0.0), folder / "quick"),
        Training(request("slow", log, "train", seconds=seconds), folder / "slow"),
    ]
    running = executor(kind)
    run_trainings(
        wanted, running, Listener(), lambda training, result: print(training.run_id, result["fitness"], flush=True)
    )
    if kind == "ray":
        running.close()  # pyright: ignore[reportAttributeAccessIssue]


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]))
