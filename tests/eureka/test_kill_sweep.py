"""A search killed at every named step and at random times, interrupted, run twice at once, with a clock that jumps:
after a resume the end is that of an undisturbed search, nothing was paid for twice, and no training that had ended was
repeated.

The searches are real but for their designer, which is scripted and pays like an endpoint, and their trainings, which
write what a training writes (`tests.eureka.kill_driver`); `test_search` and the end of this file kill real workers.
Guards that are left out one at a time, and are missed by `violations`: the lock, the insert of replies before they are
used, answers stored before they are read, results on disk adopted, files written whole, transactions, the marker
written last.
"""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any

import pytest

from eureka.integrity import examine
from tests.eureka.sweeping import CONFIG, Case, rows, whole

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="forks, and asks /proc what is written")

KILLED, INTERRUPTED, REFUSED = -signal.SIGKILL, 130, 7
IN_FLIGHT = ("paid, answer not stored",)
RANDOM_KILLS, RANDOM_INTERRUPTS = 40, 10
STEPS = (
    "search.json half written", "before the database is made", "database half written", "before the start is noted",
    "within the start's transaction", "a generation's candidate opened", "asks stored", "paid, answer not stored",
    "answer stored, not read", "before a reply's insert", "within a reply's insert", "after a reply's insert",
    "before the gate", "between gate and files", "program half written", "graph half written",
    "between files and verdict", "after a verdict", "marked as training", "request half written",
    "request written, worker not started", "worker started", "checkpoint half written",
    "between checkpoint and meta", "result half written", "between result and row", "between row and settling",
    "after settling", "report half written", "before a generation's end is noted", "within a generation's end",
    "between generations", "before the finals", "between a final's row and its copy", "copy of a baseline half made",
    "between finals", "before best/", "between best/'s model and its meta", "best.json half written", "after best/",
    "done half written", "after done",
)  # fmt: skip
"""`kill_driver.STEPS`, listed here so that collecting this file imports no torch."""


def test_an_undisturbed_search_is_whole(undisturbed_case, undisturbed):
    """What all others are compared with: six asks, one program that stays refused, seven trainings."""
    assert undisturbed["faults"] == []
    assert len(undisturbed_case.logged("paid")) == 6 and len(undisturbed_case.logged("started")) == 7
    assert {"best/model.pt", "done", "final/human_s1000/result.json", "report.html"} <= set(undisturbed)
    assert sorted(c["status"] for c in undisturbed["candidates"]) == ["refused", "trained", "trained", "trained"]


def violations(case: Case, undisturbed: dict[str, Any], step: str, **more: Any) -> list[str]:
    """Kill a search at a step, resume it, and say what was lost or done twice."""
    assert driver_status(case, step=step, **more) == KILLED, f"'{step}' never came"
    broken = []
    try:
        case.look()
    except AssertionError as error:
        return [str(error)]
    if (case.folder / "search.json").exists():
        broken += [f"after the kill: {fault}" for fault in examine(case.folder)]
    broken += [f"{name} was paid for and is lost" for name in case.lost if step not in IN_FLIGHT]
    left_out = {key: value for key, value in more.items() if key in ("plain", "without", "config")}
    try:
        if case.run(**left_out) != 0:
            return [*broken, "it does not resume"]
    except AssertionError as error:
        return [*broken, str(error)]
    found = whole(case.folder)
    return broken + [name for name in {**undisturbed, **found} if undisturbed.get(name) != found.get(name)]


def driver_status(case: Case, **more: Any) -> int:
    """How one process on the folder ends; nothing is looked at."""
    return case.driver.order(case.orders(**more))[0]["status"]


def test_every_step_is_swept():
    from tests.eureka import kill_driver

    assert set(STEPS) == set(kill_driver.STEPS)
    assert set(RUNG_STEPS) == set(kill_driver.RUNG_STEPS)


@pytest.mark.parametrize("step", STEPS)
def test_a_search_killed_at_a_step_ends_as_if_undisturbed(driver, undisturbed, step):
    """SIGKILL there, resume: same candidates, replies, runs, files and report; the folder is sound in between."""
    case = Case(driver, step)
    assert violations(case, undisturbed, step) == []
    paid = case.logged("paid")
    assert len(paid) == 6 + (step in IN_FLIGHT)


@pytest.mark.parametrize(
    ("guard", "step", "plain"),
    [
        ("insert before use", "between files and verdict", True),
        ("answer stored before it is read", "before a reply's insert", False),
        ("result adoption", "between generations", False),
        ("result adoption", "between result and row", False),
        ("files written whole", "database half written", False),
        ("files written whole", "search.json half written", False),
        ("transactions", "within a generation's end", False),
        ("marker written last", "between finals", False),
    ],
)
def test_the_sweep_misses_a_guard_that_is_left_out(driver, undisturbed, guard, step, plain):
    """The same kill without the guard is found out; with it, and the same designer, it is not."""
    more = {"plain": True} if plain else {}
    if plain:
        assert violations(Case(driver, f"with {guard}"), strip_exchanges(undisturbed), step, **more) == []
    assert violations(Case(driver, f"without {guard} {step}"), undisturbed, step, without=guard, **more)


def strip_exchanges(found: dict[str, Any]) -> dict[str, Any]:
    """What is left by a designer that stores none."""
    return {**found, "exchanges": []}


HALVING = {**CONFIG, "samples": 4, "halving": "on"}
RUNG_STEPS = (
    "a start half copied", "start copied, no request", "between a rung's result and its row",
    "between a rung's row and its decision", "within a rung's decision", "after a rung's decision",
)  # fmt: skip
"""`kill_driver.RUNG_STEPS`."""


@pytest.fixture(scope="module")
def undisturbed_halving(driver):
    """What a search leaves that stops the worse half of four candidates."""
    case = Case(driver, "undisturbed halving")
    assert case.run(config=HALVING) == 0, (driver.place / "driver.log").read_text()[-2000:]
    return whole(case.folder)


def test_an_undisturbed_halving_is_whole(undisturbed_halving):
    """Four and three candidates train for 1 of 4 iterations, two and one for 2, one and one for all."""
    assert undisturbed_halving["faults"] == []
    statuses = [(c["status"], c["rung"]) for c in undisturbed_halving["candidates"]]
    assert sorted(statuses) == sorted(
        [("eliminated", 1)] * 4 + [("eliminated", 2)] + [("trained", 2)] * 2 + [("refused", 0)]
    )
    runs = [run["role"] for run in undisturbed_halving["runs"]]
    assert runs.count("rung") == 4 + 2 + 3 + 1


@pytest.mark.parametrize("step", RUNG_STEPS)
@pytest.mark.parametrize("later", [0, 2])
def test_a_halving_killed_at_a_step_ends_as_if_undisturbed(driver, undisturbed_halving, step, later):
    """A finished rung is gone on from, an unfinished one is trained anew from the end of the one before."""
    from tests.eureka.kill_driver import CROSSINGS

    if later and step.endswith("decision"):
        later = 1
    crossing = CROSSINGS.get(step, 1) + later
    case = Case(driver, f"{step} {crossing}")
    assert violations(case, undisturbed_halving, step, config=HALVING, crossing=crossing) == []


def test_the_sweep_misses_a_rung_that_is_not_decided_at_once(driver, undisturbed_halving):
    """Three of four are decided when the kill comes: the fourth would be ranked among what is left."""
    more = {"config": HALVING, "without": "transactions", "crossing": 3}
    assert violations(Case(driver, "a rung in parts"), undisturbed_halving, "within a rung's decision", **more)


def test_a_halving_killed_at_random_times_ends_as_if_undisturbed(driver, undisturbed_halving):
    """Three searches, several kills each."""
    rng, landed = random.Random(13), 0
    whole_s = driver.order(Case(driver, "timed halving").orders(config=HALVING))[0]["wall_s"]
    for number in range(3):
        case, status = Case(driver, f"random halving {number}"), KILLED
        while status == KILLED:
            status = case.run(config=HALVING, after_s=rng.uniform(0.2, 0.9) * whole_s, signal=signal.SIGKILL)
            landed += status == KILLED
        assert status == 0
        found = whole(case.folder)
        broken = [n for n in {**undisturbed_halving, **found} if undisturbed_halving.get(n) != found.get(n)]
        assert broken == []
    assert landed >= 2


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
        assert [name for name in {**undisturbed, **found} if undisturbed.get(name) != found.get(name)] == []
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
        assert [name for name in {**undisturbed, **found} if undisturbed.get(name) != found.get(name)] == []


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
