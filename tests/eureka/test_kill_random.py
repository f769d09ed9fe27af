"""A search killed at random times, interrupted, run twice at once, with a clock that jumps: after a resume the end is that
of an undisturbed search. `test_kill_sweep` kills at every named step, and says what is real in these searches.
"""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any

import pytest

from eureka.integrity import examine
from tests.eureka.sweeping import INTERRUPTED, KILLED, REFUSED, Case, different, rows, whole

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="forks, and asks /proc what is written")

RANDOM_KILLS, RANDOM_INTERRUPTS = 40, 10


def test_a_search_killed_at_random_times_ends_as_if_undisturbed(driver, undisturbed):
    """40 kills, several a search; each may cost one answer that was in flight, and nothing else."""
    rng, landed, cases = random.Random(7), 0, 0
    whole_s = driver.order(Case(driver, "timed").orders())[0]["wall_s"]
    while landed < RANDOM_KILLS:
        cases += 1
        assert cases <= 3 * RANDOM_KILLS, "kills came too late"
        case, lost = Case(driver, f"random {cases}"), 0
        for _ in range(6):
            status = case.run(after_s=rng.uniform(0, 0.7 * whole_s), signal=signal.SIGKILL)
            assert status in (KILLED, 0)
            if status == 0:
                break
            landed += 1
            lost += sum(case.lost.values())
            if (case.folder / "search.json").exists():
                assert examine(case.folder) == []
        found = case.finish()
        assert different(undisturbed, found) == []
        assert len(case.logged("paid")) <= 6 + lost


def test_an_interrupted_search_ends_in_order_and_resumes(driver, undisturbed):
    """Ctrl-C at random times: the archive and the page say that it was stopped, and a resume ends as undisturbed."""
    rng, landed, tries = random.Random(11), 0, 0
    whole_s = driver.order(Case(driver, "timed again").orders())[0]["wall_s"]
    while landed < RANDOM_INTERRUPTS:
        tries += 1
        assert tries <= 5 * RANDOM_INTERRUPTS, "interrupts came too late"
        case = Case(driver, f"interrupted {tries}")
        status = case.run(after_s=rng.uniform(0.1, 0.9) * whole_s, signal=signal.SIGINT)
        assert status in (INTERRUPTED, 0), (driver.place / "driver.log").read_text()[-2000:]
        if status == 0:
            continue
        landed += 1
        if rows(case.folder, "SELECT 1 FROM candidates"):
            assert rows(case.folder, "SELECT value FROM meta WHERE key='state'") == [('"stopped"',)]
            assert rows(case.folder, "SELECT kind FROM events ORDER BY id DESC LIMIT 1") == [("stopped",)]
        if (case.folder / "search.json").exists():
            assert examine(case.folder) == []
        found = case.finish()
        assert different(undisturbed, found) == []


def test_of_two_searches_on_one_folder_the_second_is_refused(driver, undisturbed):
    """One comes while the other trains: it is told so and changes nothing. Without the lock both would go on."""

    def both(case: Case, **more: Any) -> list[int]:
        first = case.orders(step="worker started", hold=True, **more)
        return [answer["status"] for answer in driver.order(first, case.orders(after_hold=True, **more))]

    case = Case(driver, "twice")
    assert both(case) == [0, REFUSED]
    assert "another search is running" in case.logged("refused")[0]
    assert len(case.logged("paid")) == 6 and len(case.logged("started")) == 7
    assert whole(case.folder) == undisturbed
    free = Case(driver, "twice without a lock")
    assert both(free, without="lock")[1] == 0
    assert len(free.logged("started")) > 7, "the sweep misses a lock that is left out"


def test_a_clock_that_jumps_changes_nothing(driver, undisturbed):
    """A day back and two forward at every look, also between a kill and the resume."""
    case, day_s = Case(driver, "clock"), 86_400.0
    assert case.run(step="between row and settling", clock_s=[day_s, 0.0, 2 * day_s]) == KILLED
    assert case.run(step="between finals", clock_s=[-day_s]) == KILLED
    assert case.run(clock_s=[-day_s, day_s, 0.0]) == 0
    assert whole(case.folder) == undisturbed
    assert all(latency >= 0 for (latency,) in rows(case.folder, "SELECT latency_s FROM replies"))


def test_what_killed_writes_left_is_removed(driver, undisturbed):
    """Parts of files do not gather beside a search that is killed again and again."""
    case = Case(driver, "parts")
    for _ in range(3):
        assert case.run(step="report half written", crossing=2) == KILLED
        assert len(list(case.folder.glob(".report.html.*.part"))) == 1
    assert case.finish() == undisturbed
