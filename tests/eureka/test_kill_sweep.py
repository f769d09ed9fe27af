"""A search killed at every named step: after a resume the end is that of an undisturbed search, nothing was paid for
twice, and no training that had ended was repeated. `test_kill_halving` has the steps of searches that halve,
`test_kill_random` all else that may befall one.

The searches are real but for their designer, which is scripted and pays like an endpoint, and their trainings, which
write what a training writes (`tests.eureka.kill_driver`); `test_search_killed` and `test_killed_children` kill real
workers. Guards that are left out one at a time, and are missed by `violations`: the insert of replies before they are
used, answers stored before they are read, results on disk adopted, files written whole, transactions, the marker
written last.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.eureka.sweeping import IN_FLIGHT, Case, violations

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="forks, and asks /proc what is written")

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


def test_every_step_is_swept():
    from tests.eureka import kill_driver

    assert set(STEPS) == set(kill_driver.STEPS)


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
