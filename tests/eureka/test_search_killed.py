"""A search with real workers, killed again and again. `test_kill_sweep` kills at every step, with trainings that are
written by a fake."""

from __future__ import annotations

from pathlib import Path

import pytest

from eureka.search import run_search
from eureka.search_config import load_config, start_folder
from tests.eureka.in_process import InProcessExecutor
from tests.eureka.kill_driver import PayingDesigner
from tests.eureka.scripted import facts, slider_config
from tests.eureka.sweeping import KILLED, Case

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="forks, and ends workers by their parent's death"
)


def test_a_search_killed_again_and_again_resumes_to_the_same_end(driver, tmp_path):
    """SIGKILL at three moments, one after the other: same candidates, results and replies as an undisturbed search, whose
    trainings run in this process."""
    whole, log = tmp_path / "whole", tmp_path / "whole.log"
    start_folder(slider_config(), whole)
    run_search(whole, load_config(whole), PayingDesigner(log), InProcessExecutor())
    case = Case(driver, "real workers")
    real = {"workers": True, "config": {}}
    finished: dict[Path, int] = {}
    for moment in ("trained", "training", "final"):
        assert case.run(moment=moment, **real) == KILLED, moment
        still = {path: path.stat().st_mtime_ns for path in finished}
        assert still == finished, f"a finished training was repeated before '{moment}'"
        finished = {path: path.stat().st_mtime_ns for path in case.folder.rglob("result.json")}
    assert len(finished) >= 4, "no training had finished when the search was killed"
    assert case.run(**real) == 0, (driver.place / "driver.log").read_text()[-2000:]
    assert facts(case.folder) == facts(whole)
    asked = case.logged("paid")
    assert sorted(asked) == sorted(set(asked)), "a reply was asked for twice"
    assert sorted(asked) == sorted(line.split()[1] for line in log.read_text().splitlines())
    for part in ("g02_c00", "human", "finished"):
        assert part in (case.folder / "report.html").read_text()
