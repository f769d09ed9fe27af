"""Real workers and a real trial child, killed while a search goes on: it ends as if they had not been."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from eureka.archive import Archive
from eureka.executors.base import Executor
from eureka.executors.local import LocalExecutor
from eureka.integrity import examine
from eureka.listener import Listener
from eureka.search import run_search
from eureka.search_config import load_config, start_folder
from rewards import sandbox
from tests.eureka.in_process import InProcessExecutor
from tests.eureka.scripted import ScriptedDesigner, slider_config

KILLED_WORKER = Path(__file__).parents[1] / "data" / "killed_worker"
RUN = "candidates/g01_c00/s0"

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds children in /proc")


class Telling(Listener):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def searched(folder: Path, executor: Executor) -> tuple[dict[str, Any], list[str]]:
    """What a search of one generation found, and what it said."""
    start_folder(slider_config(generations=1, final_seeds=0), folder)
    listener, designer = Telling(), ScriptedDesigner()
    run_search(folder, load_config(folder), designer, executor, listener)
    archive = Archive(folder / "search.db", create=False, read_only=True)
    found = {
        "candidates": [
            (c.candidate_id, str(c.status), c.source, c.fitness, c.fitness_std, c.error, c.repairs)
            for c in archive.candidates()
        ],
        "runs": [(r.run_id, r.status, r.fitness, r.result["eval"], r.result["checkpoint"]) for r in archive.runs()],
        "asked": sorted(ask.ask_id for ask in designer.asked),
    }
    archive.close()
    return found, listener.said


def forked_by(pid: int) -> int:
    """The program's process, as soon as the warm child has forked it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children:
            return int(children[0])
        time.sleep(0.0005)
    raise AssertionError("no program was tried")


def test_a_killed_worker_and_killed_trials_change_nothing(tmp_path, monkeypatch):
    """A worker is killed with half a checkpoint written, the warm child at its first job, a program's process at the
    next: the training is run once more, the programs are tried by another child, and no program is blamed."""
    undisturbed, _ = searched(tmp_path / "undisturbed", InProcessExecutor())
    assert [c[1] for c in undisturbed["candidates"]] == ["trained", "trained"]

    jobs_sent: list[int] = []
    real = sandbox._Server._send

    def send(self: Any, jobs: Any) -> None:
        real(self, jobs)
        jobs_sent.append(self._child.pid)
        if len(jobs_sent) == 1:
            os.kill(self._child.pid, signal.SIGKILL)
        elif len(jobs_sent) == 3:  # the second is the first job again
            os.kill(forked_by(self._child.pid), signal.SIGKILL)

    monkeypatch.setattr(sandbox._Server, "_send", send)
    monkeypatch.setenv("PYTHONPATH", str(KILLED_WORKER))
    monkeypatch.setenv("KILLED_WORKER_RUN", RUN)
    monkeypatch.setenv("KILLED_WORKER_MARKER", str(tmp_path / "killed"))
    found, said = searched(tmp_path / "killed_children", LocalExecutor(2, 1))
    assert found == undisturbed
    assert len(jobs_sent) == 4 and len(set(jobs_sent)) == 3, "two programs, each tried twice"
    assert (tmp_path / "killed").exists()
    assert any("g01_c00_s0" in line and "once more" in line for line in said)
    assert examine(tmp_path / "killed_children") == []
    assert list((tmp_path / "killed_children").rglob("*.part")) == []
