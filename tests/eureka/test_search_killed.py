"""A search with real workers, killed again and again. `test_kill_sweep` kills at every step, with trainings that are
written by a fake."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from eureka.search import run_search
from eureka.search_config import start_folder
from tests.eureka.in_process import InProcessExecutor
from tests.eureka.scripted import ScriptedDesigner, facts, slider_config

ROOT = Path(__file__).parents[2]


def _drive(folder: Path, log: Path, moment: str | None = None) -> int:
    command = [
        sys.executable,
        "-m",
        "tests.eureka.scripted",
        str(folder),
        str(log),
        *([moment] if moment else []),
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=600, check=False).returncode


def test_a_search_killed_again_and_again_resumes_to_the_same_end(tmp_path):
    """SIGKILL at three moments, one after the other: same candidates, results and replies as an undisturbed search, whose
    trainings run in this process."""
    start_folder(slider_config(), tmp_path / "whole")
    run_search(tmp_path / "whole", slider_config(), ScriptedDesigner(tmp_path / "whole.log"), InProcessExecutor())
    folder, log = tmp_path / "killed", tmp_path / "killed.log"
    finished: dict[Path, int] = {}
    for moment in ("trained", "training", "final"):
        assert _drive(folder, log, moment) == -signal.SIGKILL, moment
        still = {path: path.stat().st_mtime_ns for path in finished}
        assert still == finished, f"a finished training was repeated before '{moment}'"
        finished = {path: path.stat().st_mtime_ns for path in folder.rglob("result.json")}
    assert len(finished) >= 5, "no training had finished when the search was killed"
    assert _drive(folder, log) == 0
    assert facts(folder) == facts(tmp_path / "whole")
    asked = log.read_text().split()
    assert sorted(asked) == sorted(set(asked)), "a reply was asked for twice"
    assert sorted(asked) == sorted((tmp_path / "whole.log").read_text().split())
    for part in ("g02_c01", "human", "finished"):
        assert part in (folder / "report.html").read_text()
