"""Ctrl-C on a whole search: once in order, twice at once; nothing runs on, and the search can be resumed."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.eureka.executor_cases import alive
from tests.eureka.scripted import SLIDER
from tests.eureka.test_supervision import FAKE

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and /proc")

# The command line with stand-ins for the workers, which take no SIGTERM and would be waited for 30 s.
COMMAND = """
import sys
from eureka.executors import local
local.WORKER = (sys.executable, sys.argv[1])
local._GRACE_S = float(sys.argv[2])
from eureka.cli import main
sys.exit(main(sys.argv[3:]))
"""


def search(folder: Path, grace_s: float, behaviour: str) -> subprocess.Popen[str]:
    """A search that is training its one candidate when this returns."""
    (folder / "starts").mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENAI_")}
    environment |= {"FAKE_WORKER": behaviour, "FAKE_STARTS": str(folder / "starts"), "PYTHONPATH": str(ROOT)}
    words = ["search", str(SLIDER), "-k", "1", "-n", "1", "--designer", "evolution", "--out", str(folder / "out")]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, FAKE, str(grace_s), *words],
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 300
    while not list(folder.rglob("child.pid")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return process


def pids(folder: Path) -> list[int]:
    """The worker's and that of its child."""
    worker = next((folder / "starts").iterdir()).read_text().split()[0]
    return [int(worker), *(int(path.read_text()) for path in folder.rglob("child.pid"))]


def test_the_first_ends_a_search_in_order(tmp_path):
    """One line at once, one at the end with the way to go on; the archive is whole and says that it was stopped."""
    process = search(tmp_path, 0.5, "stubborn")
    found = pids(tmp_path)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=110)
    assert (process.returncode, out) == (130, "")
    assert "interrupted: the trainings are being ended in order; Ctrl-C again ends everything at once" in err
    assert err.splitlines()[-1] == f"eureka: interrupted; go on with eureka search --resume {tmp_path / 'out'}"
    assert "Traceback" not in err
    assert not any(map(alive, found))
    database = sqlite3.connect(tmp_path / "out" / "search.db")
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert json.loads(database.execute("SELECT value FROM meta WHERE key='state'").fetchone()[0]) == "stopped"
    database.close()


def test_the_second_ends_everything_at_once(tmp_path):
    """It does not wait for workers that take their time; no traceback, and nothing is left running. SIGTERM counts."""
    process = search(tmp_path, 120.0, "stubborn")
    found = pids(tmp_path)
    process.send_signal(signal.SIGTERM)
    time.sleep(1.0)
    assert process.poll() is None, "the first one waits for the workers"
    assert all(map(alive, found))
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=110)
    assert time.monotonic() - began < 60.0  # of the 120 s that it would give them
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == f"eureka: ended at once; go on with eureka search --resume {tmp_path / 'out'}"
    assert "Traceback" not in err
    deadline = time.monotonic() + 20
    while any(map(alive, found)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(alive, found))
