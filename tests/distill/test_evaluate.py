"""What a student keeps of experts in closed form; told and done counted against a plain loop over worlds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from distill.evaluate import (
    EXPERT,
    HELD_OUT,
    IDLE,
    STUDENT,
    Measure,
    evaluate_skill,
    kept_estimate,
    mean_estimate,
    prices,
    run_player,
)
from distill.told import Listening, add
from rl.evaluate import evaluate
from tasks import registry
from tasks.env import make_env
from tasks.errors import UserError
from tests.distill.conftest import draw
from tests.distill.students import COMMANDS, as_commanded, cloned, to_the_middle, untrained
from tests.eureka.command_line import SLIDER

MEASURE = Measure(episodes=24, seed=5, num_threads=1)


@pytest.fixture(scope="module")
def report():
    """The commanded mass, with a student that was cloned."""
    return evaluate_skill(cloned(), "slider-commands", as_commanded, MEASURE)


def test_a_cloned_student_keeps_its_expert_and_does_what_it_is_told(report):
    assert report.kept.value > 0.75 and report.kept.low < report.kept.value < report.kept.high < 1.05
    assert report.kept_held_out.value > 0.4 and report.kept_held_out != report.kept
    for who in (EXPERT, STUDENT, HELD_OUT):
        assert report.runs[who].obeyed.share > 0.9, who
    assert report.runs[IDLE].obeyed.share < 0.5
    # Held-out words are other words, each said by itself.
    heard = [set(report.runs[who].obeyed.phrases) for who in (STUDENT, HELD_OUT)]
    commands = registry.make(COMMANDS).commands
    assert [heard[n] <= {phrase for phrase, _ in commands.phrases(bool(n))} for n in (0, 1)] == [True, True]
    assert (report.embodiment, report.execute, report.steps, report.unit) == ("mass", 2, 4, "fraction")


def test_negative_fitness_has_a_scale_too(report):
    """The mass in the middle has a fitness of at most 0. The figures again, by hand."""
    found = evaluate_skill(cloned(), "slider", to_the_middle, MEASURE)
    assert HELD_OUT not in found.runs and found.kept_held_out is None
    means = {who: sum(run.per_episode) / 24 for who, run in found.runs.items()}
    assert means[IDLE] < means[EXPERT] < 0.0
    by_hand = (means[STUDENT] - means[IDLE]) / (means[EXPERT] - means[IDLE])
    assert found.kept.value == pytest.approx(by_hand, rel=1e-9)
    assert found.kept.value > 0.8
    alone = evaluate(registry.make(SLIDER), to_the_middle, episodes=24, seed=5, num_threads=1)
    assert list(found.runs[EXPERT].per_episode) == alone.per_episode.tolist()


def test_an_expert_that_is_not_here(report):
    found = evaluate_skill(cloned(), "slider", None, MEASURE)
    assert set(found.runs) == {IDLE, STUDENT} and found.kept is None


def test_prices_of_chunks(report):
    """Each as its own evaluation says; what was measured already is not measured again."""
    said: list[str] = []
    found = prices(cloned(), report, executes=(1, 2, 4, 8), steps=(1, 4), measure=MEASURE, say=said.append)
    assert [(price.execute, price.steps) for price in found] == [(1, 4), (2, 4), (4, 4), (2, 1)]
    assert found[1].fitness == report.runs[STUDENT].fitness and found[1].kept == report.kept
    again = evaluate_skill(cloned(), "slider-commands", as_commanded, dataclasses.replace(MEASURE, execute=4))
    assert found[2].fitness == again.runs[STUDENT].fitness and found[2].kept == again.kept and again.execute == 4
    fewer = evaluate_skill(cloned(), "slider-commands", as_commanded, dataclasses.replace(MEASURE, steps=1))
    assert found[3].fitness == fewer.runs[STUDENT].fitness and fewer.steps == 1
    assert len({price.fitness.value for price in found}) == 4
    regression = evaluate_skill(untrained("regression"), "slider-commands", None, MEASURE)
    assert regression.steps == 1
    only = prices(untrained("regression"), regression, executes=(2,), steps=(1, 2, 4), measure=MEASURE)
    assert [(price.execute, price.steps) for price in only] == [(2, 1)]


def test_intervals_hold_what_they_say():
    """Of 300 samples of 40 episodes, 95 % of the intervals hold the true mean; 3 standard errors of that are 4 %."""
    rng, hits = np.random.default_rng(1), 0
    for _ in range(300):
        found = mean_estimate(rng.normal(2.0, 1.0, 40))
        hits += found.low <= 2.0 <= found.high
    assert 0.90 < hits / 300 < 0.98


def test_episodes_are_drawn_for_all_players_together():
    """Where the student is always 0.1 below its expert, whatever the episode, hardly anything is uncertain."""
    expert = np.random.default_rng(2).normal(5.0, 2.0, 50)
    found = kept_estimate(expert - 0.1, expert, np.zeros(50))
    assert found.value == pytest.approx(1 - 0.1 / expert.mean())
    assert found.high - found.low < 0.01
    unpaired = kept_estimate(np.roll(np.sort(expert), 7) - 0.1, np.sort(expert)[::-1], np.zeros(50))
    assert unpaired.high - unpaired.low > 0.1
    assert kept_estimate([1.0, 2.0], [0.0, 3.0], [3.0, 0.0]) is None, "the expert is no better than nothing"


class Wandering:
    """Pushes each world by its own random forces, held for some steps, so that anything may happen, falls included."""

    def __init__(self) -> None:
        self.rng, self.step = draw(8), 0
        self.force = torch.zeros(1)

    def act(self, env):
        if self.step % 7 == 0:
            self.force = torch.rand(env.num_envs, 1, generator=self.rng) * 2.0 - 1.0
        self.step += 1
        return self.force


def test_told_and_done_against_a_plain_loop():
    """With commands of 15 steps in episodes of 40: the last stretch is too short to be judged."""
    task = type("Hasty", (type(registry.make(COMMANDS)),), {"command_time_s": 0.75})()
    listening, count = Listening(task, Wandering()), 64
    env, wanderer = make_env(task, count, seed=2, num_threads=1), Wandering()
    matrix = [[0] * 4 for _ in range(3)]
    phrases: dict[str, list[int]] = {}
    stretches: list[list[tuple[int, str, float]]] = [[] for _ in range(count)]
    over = [False] * count
    settle = 6  # 0.3 s of 0.05 s

    def close(world, fell):
        told, phrase, _ = stretches[world][0]
        speeds = [speed for _, _, speed in stretches[world]][settle:]
        if fell or len(speeds) >= settle:
            mean = sum(speeds) / len(speeds) if not fell else 0.0
            did = 3 if fell else min(range(3), key=lambda place: abs(mean - (0.5, -0.5, 0.0)[place]))
            matrix[told][did] += 1
            right_of = phrases.setdefault(phrase, [0, 0])
            right_of[0] += did == told
            right_of[1] += 1
        stretches[world] = []

    for _ in range(env.max_episode_steps):
        told, said = env.sim.memory["command_index"].tolist(), task.instructions(env.sim)
        for world in range(count):
            if not over[world] and stretches[world] and stretches[world][-1][0] != told[world]:
                close(world, False)
        step = env.step(wanderer.act(env))
        for world in range(count):
            if over[world]:
                continue
            stretches[world].append((told[world], said[world], float(step.signals["mass_velocity"][world, 0])))
            if step.done[world]:
                close(world, bool(step.terminated[world]))
                over[world] = True
    evaluate(task, listening, episodes=count, seed=2, num_threads=1, watch=listening.watch)
    found = listening.obeyed
    assert [list(row) for row in found.matrix] == matrix
    assert {phrase: list(counts) for phrase, counts in found.phrases.items()} == phrases
    assert sum(row[3] for row in matrix) > 3 and found.stretches > 60, "falls are among them"
    assert found.share == sum(matrix[n][n] for n in range(3)) / found.stretches
    both = add(found, found)
    assert both.share == found.share and both.stretches == 2 * found.stretches
    assert both.phrases == {phrase: (2 * a, 2 * b) for phrase, (a, b) in phrases.items()}


@pytest.mark.parametrize(
    ("ask", "line"),
    [
        (lambda: Listening(registry.make(SLIDER), to_the_middle), "task 'slider' has no commands"),
        (lambda: Measure(episodes=1), "evaluate: episodes is 1; expected at least 2."),
        (lambda: run_player(registry.make(SLIDER), lambda seen: seen, MEASURE), "gave actions of shape (24, 2)"),
    ],
)
def test_what_cannot_work_gives_one_line(ask, line):
    with pytest.raises(UserError) as caught:
        ask()
    assert line in str(caught.value) and "\n" not in str(caught.value)
