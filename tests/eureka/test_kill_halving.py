"""A search that halves its generations, killed at the steps that only such a search has and at random times: after a
resume the end is that of an undisturbed one. `test_kill_sweep` has the steps of every search.
"""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from tests.eureka.sweeping import CONFIG, KILLED, Case, different, violations, whole

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="forks, and asks /proc what is written")

HALVING = {**CONFIG, "samples": 4, "halving": "on"}
RUNG_STEPS = (
    "a start half copied", "start copied, no request", "between a rung's result and its row",
    "between a rung's row and its decision", "within a rung's decision", "after a rung's decision",
)  # fmt: skip
"""`kill_driver.RUNG_STEPS`, listed here so that collecting this file imports no torch."""


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


def test_every_step_of_a_rung_is_swept():
    from tests.eureka import kill_driver

    assert set(RUNG_STEPS) == set(kill_driver.RUNG_STEPS)


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
    """At least three searches and two kills; later kills come sooner where one came too late."""
    rng, landed = random.Random(13), 0
    whole_s = driver.order(Case(driver, "timed halving").orders(config=HALVING))[0]["wall_s"]
    for number in range(10):
        case, status, before = Case(driver, f"random halving {number}"), KILLED, landed
        while status == KILLED:
            status = case.run(config=HALVING, after_s=rng.uniform(0.2, 0.9) * whole_s, signal=signal.SIGKILL)
            landed += status == KILLED
        assert status == 0
        assert different(undisturbed_halving, whole(case.folder)) == []
        if number >= 2 and landed >= 2:
            return
        if landed == before:  # the search that was timed was slower than this one
            whole_s *= 0.7
    pytest.fail(f"only {landed} kills landed in 10 searches")
