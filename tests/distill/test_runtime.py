"""Both systems at once: what is in force when, a planner that is late, silent, wrong, broken or hung, and whole tours.

The puck does at once what it is told (`tests.distill.puck`), so that what is tested is the runtime.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence

import pytest
import torch

from distill import runtime_driver
from distill.planner import PlannerDone, PlannerError, Subtask, Vocabulary
from distill.planner_oracle import OraclePlanner
from distill.planner_script import ScriptPlanner
from distill.policy import blended
from distill.runtime import Body, BodyResult, RuntimeConfig, run
from distill.runtime_clock import Pacer
from distill.runtime_driver import ExpertDriver, HeadDriver
from distill.runtime_journal import Journal
from distill.runtime_orders import InForce, Lapse, Order
from distill.runtime_system2 import Rhythm
from tasks.env import make_env
from tasks.errors import UserError
from tests.distill.puck import PuckCommand, PuckTour, policy
from tests.distill.puck_head import untaught

STILL, LEFT, RUN = (Order(name, name) for name in ("stand still", "turn left", "run forward"))


class Saying:
    """A planner that is a function of how often it was asked."""

    name, wants_images = "saying", False

    def __init__(self, answer: Callable[[int], Subtask]) -> None:
        self._answer = answer
        self.asked = 0
        self.histories: list[Sequence] = []

    def plan(self, images, goal, history) -> Subtask:
        self.histories.append(history)
        self.asked += 1
        return self._answer(self.asked - 1)

    def facts(self):
        return {}

    def close(self) -> None:
        """Nothing is held."""


def go(planner, *, task=None, config=None, seed=0, folder=None, driver=None) -> tuple[BodyResult, Body, Journal]:
    """One run of the puck."""
    config = config or RuntimeConfig(speed=0.0, max_s=8.0)
    task = task or PuckCommand()
    env = make_env(task, 1, seed=seed, num_threads=1)
    journal = Journal(folder)
    box: list[Body] = []
    made = planner(task, box) if callable(planner) else planner
    goal = task.tour_goals(env.sim)[0] if isinstance(task, PuckTour) else ""
    made_driver = driver or ExpertDriver(policy, task)
    box.append(Body("puck", env, made_driver, made, goal, config, journal, vocabulary=Vocabulary(task.commands)))
    (result,), _ = run(box, config)
    env.close()
    return result, box[0], journal


def oracle(task, box, **options) -> OraclePlanner:
    return OraclePlanner(lambda: task.tour_facts(box[0].view), task.commands, **options)


def kinds(journal: Journal) -> list[str]:
    return [event["kind"] for event in journal.events]


# -- what is in force


def test_an_order_with_a_duration_ends_with_it():
    force = InForce(STILL, hold_s=2.0)
    assert force.at(0.0) is STILL
    force.tell(LEFT, 1.0, 0.5)
    assert [force.at(t) for t in (1.0, 1.48, 1.5, 9.0)] == [LEFT, LEFT, STILL, STILL]
    assert force.lapses == [Lapse(1.5, "turn left", "duration over")]
    assert force.runs_until() == 1.5


def test_an_order_of_a_silent_planner_holds_for_a_stated_time():
    force = InForce(STILL, hold_s=2.0)
    force.tell(RUN, 0.0, None)
    force.tell(Order("run forward", "again"), 1.5, None)
    assert force.at(1.6) is RUN, "the same words confirm, and begin nothing anew"
    assert force.at(3.4) is RUN and force.at(3.5) is STILL
    assert force.lapses == [Lapse(3.5, "run forward", "planner silent")]
    force.tell(RUN, 4.0, None)
    assert force.at(4.0) is RUN and force.at(6.0) is STILL and len(force.lapses) == 2


def test_standing_still_is_no_lapse():
    force = InForce(STILL, hold_s=1.0)
    force.tell(Order("stand still", 0), 0.0, None)
    assert force.at(5.0) is STILL and not force.lapses


# -- the clock


def test_a_pacer_keeps_its_period_and_does_not_hurry_after_a_delay():
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    def clock() -> float:
        now[0] += 1e-6
        return now[0]

    pacer = Pacer(0.01, clock, sleep)
    for work in (0.002, 0.002, 0.013, 0.002, 0.035, 0.002, 0.002):
        pacer.wait()
        now[0] += work
        pacer.worked()
    expected = [0.010, 0.010, 0.013, 0.007, 0.035, 0.010]
    assert pacer.periods().tolist() == pytest.approx(expected, abs=1e-4)
    assert pacer.restarts == 1
    rates = pacer.rates()
    assert (
        rates is not None
        and rates.late_share == pytest.approx(2 / 6)
        and rates.longest_s == pytest.approx(0.035, abs=1e-4)
    )


# -- tours


@pytest.mark.parametrize(("timed", "delay_s"), [(False, 0.0), (True, 0.5), (True, 2.0)])
def test_the_oracle_does_tours_also_when_its_answers_come_late(timed, delay_s):
    config = RuntimeConfig(speed=0.0, delay_s=delay_s)
    result, body, journal = go(lambda task, box: oracle(task, box, timed=timed), task=PuckTour(), config=config, seed=1)
    assert result.success and result.end == "success" and result.standing and result.speed_m_s < 0.05
    told = [event for event in journal.events if event["kind"] == "told"]
    assert all(event["time_s"] == pytest.approx(event["asked_s"] + delay_s, abs=0.021) for event in told)
    assert result.silences == 0 and len(body.frames) == len(body.captions) > 50


def test_a_run_as_fast_as_possible_is_a_function_of_its_seed():
    runs = [go(oracle, task=PuckTour(), config=RuntimeConfig(speed=0.0, max_s=4.0), seed=seed) for seed in (1, 1, 2)]
    frames = [[frame.tolist() for frame in body.frames] for _, body, _ in runs]
    assert frames[0] == frames[1] != frames[2]


def test_a_tour_that_goes_astray_fails():
    forward = Saying(lambda n: Subtask("run forward"))
    ends = {
        go(forward, task=PuckTour(), config=RuntimeConfig(speed=0.0, max_s=6.0), seed=seed)[0].end for seed in range(6)
    }
    assert "success" not in ends and "wrong_post" in ends


# -- when planners are asked, and what they are told


def test_a_planner_that_decides_is_asked_at_its_rate_and_one_with_durations_when_they_end():
    often = Saying(lambda n: Subtask("turn left"))
    go(often, config=RuntimeConfig(speed=0.0, max_s=2.0, rhythm=Rhythm(planner_hz=5.0)))
    assert often.asked == 10
    assert [len(history) for history in often.histories] == [0] + [1] * 9, "the same words are one turn"
    assert often.histories[-1][0].held_s == pytest.approx(1.8)
    timed = Saying(lambda n: Subtask("turn left", 0.5))
    go(timed, config=RuntimeConfig(speed=0.0, max_s=2.0))
    assert timed.asked == 4
    assert [turn.held_s for turn in timed.histories[-1]] == pytest.approx([0.5] * 3)


def test_a_script_is_carried_out_to_the_letter():
    """Turned by rate x time, to the puck's own lag of a step or two; then it stands, and the run ends."""
    script = ScriptPlanner([Subtask("turn left", 1.0), Subtask("run forward", 0.5)])
    task = PuckCommand()
    result, body, _ = go(script, task=task, config=RuntimeConfig(speed=0.0, after_s=1.0))
    turned = body.view.qpos[0, 2] - body.frames[0][2]
    assert float(turned) == pytest.approx(1.0, abs=0.06)
    moved = torch.linalg.norm(body.view.qpos[0, :2])
    assert float(moved) == pytest.approx(1.0, abs=0.12)
    assert result.end == "the script has ended" and result.time_s == pytest.approx(2.5, abs=0.05) and result.standing
    assert body.captions[0] == "turn left" and body.captions[-1] == "stand still"


# -- planners at fault


class Obliging(ExpertDriver):
    """Takes any words, as a head does."""

    def prepare(self, instruction: str) -> Order:
        try:
            return super().prepare(instruction)
        except UserError:
            return Order(instruction, 0)


def test_words_outside_the_list_are_refused_and_leave_what_is_in_force():
    planner = Saying(lambda n: Subtask("turn left", 1.0) if n == 0 else Subtask("fly to the moon"))
    config = RuntimeConfig(speed=0.0, rhythm=Rhythm(give_up_after=3))
    result, _, journal = go(planner, config=config, driver=Obliging(policy, PuckCommand()))
    assert kinds(journal) == ["told", "failed", "failed", "failed", "dead", "lapse"]
    assert "no command is called 'fly to the moon'" in journal.events[1]["error"]
    assert result.counts == {"asked": 4, "answered": 1, "not_in_the_list": 3}
    assert result.standing and "3 failures in a row" in result.end


def test_failures_in_a_row_are_asked_again_with_growing_pauses():
    def answer(n: int) -> Subtask:
        if n in (1, 2, 3):
            raise PlannerError("busy", kind="rate_limited")
        return Subtask("run forward")

    planner = Saying(answer)
    result, _, journal = go(planner, config=RuntimeConfig(speed=0.0, max_s=6.0, rhythm=Rhythm(hold_s=1.0)))
    failed = [event["time_s"] for event in journal.events if event["kind"] == "failed"]
    assert failed == pytest.approx([0.1, 0.6, 1.6])
    assert result.counts["rate_limited"] == 3 and result.silences == 1
    lapse = next(event for event in journal.events if event["kind"] == "lapse")
    assert lapse["why"] == "planner silent" and lapse["time_s"] == pytest.approx(1.0)
    again = [event["time_s"] for event in journal.events if event["kind"] == "told"][1]
    assert again == pytest.approx(3.6), "it goes on when the planner is back"


@pytest.mark.parametrize("error", [RuntimeError("a bug\nof its own"), PlannerError("no quota", final=True)])
def test_a_planner_that_dies_leaves_its_last_word_for_a_time_then_the_body_stands(error):
    def answer(n: int) -> Subtask:
        if n:
            raise error
        return Subtask("run forward")

    config = RuntimeConfig(speed=0.0, after_s=1.0, rhythm=Rhythm(hold_s=1.5))
    result, body, journal = go(Saying(answer), config=config)
    assert result.end.startswith("the planner is dead: ") and "\n" not in result.end
    assert result.standing and result.time_s == pytest.approx(2.5, abs=0.05)
    running = sum(words == "run forward" for words in body.captions) * body.frame_s
    assert running == pytest.approx(1.5, abs=0.1)
    assert float(body.view.qvel.abs().max()) < 0.05
    assert kinds(journal)[:3] == ["told", "failed", "dead"]


def test_the_fast_loop_does_not_wait_for_a_planner_that_hangs():
    """In real time, five times as fast: the second question is never answered."""
    hung = threading.Event()

    def answer(n: int) -> Subtask:
        if n:
            hung.wait(20.0)
        return Subtask("run forward")

    config = RuntimeConfig(speed=5.0, max_s=4.0, rhythm=Rhythm(hold_s=1.0))
    began = time.perf_counter()
    try:
        result, body, _ = go(Saying(answer), config=config)
    finally:
        hung.set()
    # 0.8 s for 4 s of the world, 2 s for the thread that does not come back; the question would hang for 20.
    assert time.perf_counter() - began < 10.0
    assert result.end == "time limit" and result.time_s == pytest.approx(4.0) and result.silences == 1
    assert result.standing and float(body.view.qvel.abs().max()) < 0.05
    assert result.counts == {"asked": 2, "answered": 1}


def test_in_real_time_a_slow_planner_is_obeyed_when_it_comes():
    def answer(n: int) -> Subtask:
        time.sleep(0.1)
        return Subtask("turn left" if n % 2 else "run forward", 0.4)

    result, body, journal = go(Saying(answer), config=RuntimeConfig(speed=4.0, max_s=4.0))
    told = [event for event in journal.events if event["kind"] == "told"]
    # How far the world gets meanwhile depends on the machine; that it goes on does not.
    assert len(told) >= 3 and all(event["time_s"] > event["asked_s"] for event in told)
    assert {"run forward", "turn left", "stand still"} <= set(body.captions)
    assert result.silences == 0, "a duration that is over is no silence"
    assert result.latency_s is not None and result.latency_s["median"] >= 0.1


def test_a_planner_with_nothing_more_to_say_ends_the_run():
    def answer(n: int) -> Subtask:
        if n:
            raise PlannerDone("the person has ended it")
        return Subtask("run forward")

    result, _, journal = go(Saying(answer), config=RuntimeConfig(speed=0.0, after_s=0.5, rhythm=Rhythm(hold_s=0.5)))
    assert result.end == "the person has ended it" and result.standing and "done" in kinds(journal)


# -- the record


def test_the_record_on_the_disk_is_the_one_in_memory(tmp_path):
    _, _, journal = go(Saying(lambda n: Subtask("turn left", 0.5, "why not")), folder=tmp_path / "run")
    journal.close({"end": "over"})
    lines = (tmp_path / "run" / "events.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == journal.events and journal.events[0]["note"] == "why not"
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == {"end": "over"}


def test_numbers_that_cannot_work_are_refused():
    for wrong in ({"speed": -1.0}, {"delay_s": 1.0}, {"after_s": float("nan")}):
        with pytest.raises(UserError):
            RuntimeConfig(**wrong)
    with pytest.raises(UserError, match="hold_s"):
        Rhythm(hold_s=0.0)


# -- System 1 by words


def chunks_take(monkeypatch, seconds: float) -> None:
    """Let drivers believe that a chunk takes so long on this machine."""
    monkeypatch.setattr(HeadDriver, "_measure", lambda self, guided: setattr(self, "_guided", guided) or seconds)


@pytest.mark.parametrize("objective", ["flow", "regression"])
def test_chunks_from_a_thread_are_joined_to_what_is_carried_out(monkeypatch, objective):
    """Each step gives the worker time, so that what it brings does not depend on the machine: every chunk comes within
    the delay, and the settled actions of the old one are kept to the bit."""
    chunks_take(monkeypatch, 0.008)
    task = PuckCommand()
    env = make_env(task, 1, seed=0, num_threads=1)
    generalist = untaught(objective)
    encoded = []
    monkeypatch.setattr(
        type(generalist.encoder), "forward", spied(type(generalist.encoder).forward, encoded), raising=True
    )
    held: list[bool] = []
    if objective == "flow":
        sample = generalist.head.sample
        monkeypatch.setattr(
            generalist.head,
            "sample",
            lambda *a, guide, **k: held.append(guide is not None) or sample(*a, guide=guide, **k),
        )
    else:
        monkeypatch.setattr(
            runtime_driver,
            "blended",
            lambda request, chunk: held.append(request.previous is not None) or blended(request, chunk),
        )
    driver = HeadDriver(generalist, "puck-command", task, step_s=0.02)
    assert driver._worker is not None and driver._broker.delay == 1
    orders = [driver.prepare(words) for words in ("turn left", "run forward", "turn left")]
    assert len(encoded) == 2 and orders[0].prepared is orders[2].prepared, "each phrase is encoded once"
    kept = []
    for step in range(30):
        before, at = driver._broker._chunk, driver._broker._chunk_step
        action = driver.act(env, orders[step // 10])
        after = driver._broker._chunk
        if before is not None and after is not before and driver._broker._chunk_step > at:
            # The action of the step in which it was asked for was the old chunk's: it is settled.
            kept.append(torch.equal(after[0], before[driver._broker._chunk_step - at]))
        env.step(action)
        for _ in range(2000):
            if driver._worker.idle:
                break
            time.sleep(0.001)
    driver.close()
    facts = driver.facts()
    assert len(kept) >= 5 and all(kept)
    assert held == [False] + [True] * len(kept), "every chunk but the first is held to the one before"
    assert facts["late_chunks"] == facts["dropped_chunks"] == facts["steps_without_action"] == 0
    env.close()


def spied(forward, seen: list):
    def called(self, instructions, images=None):
        seen.append(tuple(instructions))
        return forward(self, instructions, images)

    return called


def test_a_fault_in_the_thread_of_chunks_ends_the_run_and_is_not_lost(monkeypatch):
    chunks_take(monkeypatch, 0.008)
    driver = HeadDriver(untaught(), "puck-command", PuckCommand(), step_s=0.02)
    driver._worker.start(0, ())  # nothing to compute a chunk from
    for _ in range(2000):
        if driver._worker.idle:
            break
        time.sleep(0.001)
    with pytest.raises(TypeError):
        driver._worker.finished()
    driver.close()


def test_a_head_too_slow_for_real_time_is_refused(monkeypatch):
    chunks_take(monkeypatch, 0.5)
    with pytest.raises(UserError, match="too slow for real time here; lower --speed"):
        HeadDriver(untaught(), "puck-command", PuckCommand(), step_s=0.02)
