"""What a killed search leaves running: found by pid, start time, boot and word, and nobody else is harmed.

`sleeper` is such a process: nobody's child that counts, in a session of its own.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from eureka.executors import processes
from eureka.executors.processes import MARK, NOTE, end_orphans, note_worker, process_stat
from tasks.errors import UserError
from tests.eureka.executor_cases import alive, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and /proc")
SLEEP = "import time; time.sleep(120)"


@pytest.fixture
def sleeper() -> Iterator:
    """Starts a process that sleeps, with variables of its own; all are ended after the test."""
    started: list[subprocess.Popen] = []

    def start(code: str = SLEEP, **variables: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", code], env=os.environ | variables, start_new_session=True, stdout=subprocess.PIPE
        )
        started.append(process)
        until(lambda: b"sleep" in Path(f"/proc/{process.pid}/cmdline").read_bytes())  # it has become Python
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]


def test_what_a_dead_worker_had_started_is_ended_too(tmp_path, sleeper):
    """A grandchild in a session of its own, such as an encoder, after the worker itself has gone."""
    code = "import os, time\nif pid := os.fork(): print(pid, flush=True); os._exit(0)\nos.setsid(); time.sleep(120)"
    leader = subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {MARK: "a-word"}, stdout=subprocess.PIPE, start_new_session=True
    )
    assert leader.stdout is not None
    grandchild = int(leader.stdout.readline())
    note_worker(tmp_path, leader.pid, "a-word")
    leader.wait()
    leader.stdout.close()
    assert alive(grandchild)
    said = end_orphans(tmp_path)
    assert said is not None and f"what worker {leader.pid} had started" in said
    assert not alive(grandchild)


def test_a_stranger_with_the_noted_pid_is_left_alone(tmp_path, sleeper):
    """The number was used again, the machine started anew, or the note was forged: nobody else is ended."""
    stranger, kin = sleeper(), sleeper(**{MARK: "a-word"})
    note_worker(tmp_path, stranger.pid, "a-word-of-nobody")
    assert end_orphans(tmp_path) is None
    note_worker(tmp_path, kin.pid, "a-word")
    note = json.loads((tmp_path / NOTE).read_text())
    (tmp_path / NOTE).write_text(json.dumps(note | {"boot_id": "another"}))
    assert end_orphans(tmp_path) is None
    for broken in ("{", "[]", '{"pid": 1}', json.dumps(note | {"word": ""}), json.dumps(note | {"pid": "1"})):
        (tmp_path / NOTE).write_text(broken)
        assert end_orphans(tmp_path) is None
    assert alive(stranger.pid) and alive(kin.pid)


def test_where_the_kernel_does_not_name_its_start_nothing_is_ended(tmp_path, sleeper, monkeypatch):
    """Two starts of the machine could not be told apart: both would be called ""."""
    orphan = sleeper(**{MARK: "a-word"})
    monkeypatch.setattr(processes, "boot_id", lambda: "")
    note_worker(tmp_path, orphan.pid, "a-word")
    assert end_orphans(tmp_path) is None and alive(orphan.pid)


# Its child is of its group, and carries no word: only the group leads to it.
FAMILY = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "{SLEEP}"], env={{}})
print(child.pid, flush=True)
time.sleep(120)
"""


@pytest.mark.parametrize(
    ("noted", "ended"),
    [({}, True), ({"start_ticks": 1}, False), ({"start_ticks": None}, False), ({"pid": 2**22 + 1}, False)],
    ids=["as noted", "another start time", "no start time", "another pid"],
)
def test_a_group_is_ended_where_pid_and_start_time_are_the_noted_ones(tmp_path, sleeper, noted, ended):
    """The leader goes by its word in any case; whoever is in its group goes only if the note is of this very process."""
    leader = sleeper(FAMILY, **{MARK: "a-word"})
    child = int(leader.stdout.readline())
    try:
        note_worker(tmp_path, leader.pid, "a-word")
        note = json.loads((tmp_path / NOTE).read_text())
        (tmp_path / NOTE).write_text(json.dumps(note | noted))
        assert end_orphans(tmp_path) is not None
        assert not alive(leader.pid)
        if ended:
            until(lambda: not alive(child), 30.0)  # by itself it would live for two minutes
        else:
            assert alive(child)
    finally:
        processes.signal_group(leader.pid, processes.signal.SIGKILL)


def test_the_group_of_others_is_left_alone(tmp_path, sleeper):
    """A noted worker that is in somebody else's group, as one that was started by hand, goes alone."""
    code = FAMILY.replace("env={}", f"env={{'{MARK}': 'a-word'}}")
    other = sleeper(code)
    worker = int(other.stdout.readline())
    until(lambda: Path(f"/proc/{worker}/environ").read_bytes().startswith(MARK.encode()))
    note_worker(tmp_path, worker, "a-word")
    assert f"worker {worker}" in (end_orphans(tmp_path) or "")
    assert not alive(worker) and alive(other.pid)


def test_a_process_that_took_the_number_meanwhile_is_left_alone(sleeper):
    """Between the look at all processes and the signal, the number may have come to somebody else."""
    stranger = sleeper()
    stat = process_stat(stranger.pid)
    assert stat is not None
    processes._kill(dataclasses.replace(stat, start_ticks=stat.start_ticks - 1))
    with pytest.raises(subprocess.TimeoutExpired):
        stranger.wait(0.2)
    processes._kill(stat)
    assert stranger.wait(20.0) == -processes.signal.SIGKILL


def test_an_orphan_that_cannot_be_ended_is_an_error(tmp_path, sleeper, monkeypatch):
    """Two processes in one folder would spoil it."""
    orphan = sleeper(**{MARK: "a-word"})
    note_worker(tmp_path, orphan.pid, "a-word")
    monkeypatch.setattr(processes, "_GONE_S", 0.1)
    monkeypatch.setattr(processes, "_kill", lambda process: None)
    monkeypatch.setattr(processes, "signal_group", lambda *_: None)
    with pytest.raises(UserError, match=f"process {orphan.pid} of a killed search still runs"):
        end_orphans(tmp_path)
