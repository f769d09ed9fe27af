"""Evaluation against closed forms: scripted policies on the slider (see test_rsl_adapter for how it
moves)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rl.behaviour import Behaviour
from rl.evaluate import evaluate
from tasks.env import make_env
from tasks.errors import UserError
from tasks.signals import Signal, SignalTable

EPISODES = 40
STEPS = 40  # 2 s at 0.05 s
SEED = 77


def starts(slider) -> torch.Tensor:
    env = make_env(slider, EPISODES, seed=SEED, num_threads=1)
    places = env.observe()[:, 0].clone()
    env.close()
    return places


def test_a_mass_at_rest(slider):
    """Without force the mass stays where it began: fitness is minus its distance there, in every step."""
    places = starts(slider)
    result = evaluate(slider, lambda o: torch.zeros(len(o), 1), episodes=EPISODES, seed=SEED, num_threads=1)
    assert result.per_episode.tolist() == pytest.approx((-places.abs()).tolist(), abs=1e-6)
    assert result.fitness == pytest.approx(-places.abs().mean().item(), abs=1e-6)
    assert result.fitness_std == pytest.approx(places.abs().std(correction=0).item(), abs=1e-6)
    assert (result.truncations, result.terminations, result.diverged) == (EPISODES, {}, 0)
    assert result.episode_length_s == pytest.approx(2.0)


def test_full_thrust_leaves_the_rail(slider):
    """x after n control steps of full thrust is x0 + 0.0025 x (2n)(2n + 1)/2; every step missed counts -2."""
    expected, lengths = [], []
    for x0 in starts(slider).tolist():
        places = [x0 + 4.0 * 0.025**2 * (2 * n) * (2 * n + 1) / 2 for n in range(1, STEPS + 1)]
        length = next(n for n, place in enumerate(places, start=1) if abs(place) > 2.0)
        expected.append((-sum(abs(p) for p in places[:length]) - 2.0 * (STEPS - length)) / STEPS)
        lengths.append(length)
    result = evaluate(slider, lambda o: torch.ones(len(o), 1), episodes=EPISODES, seed=SEED, num_threads=1)
    assert result.per_episode.tolist() == pytest.approx(expected, abs=1e-4)
    assert result.terminations == {"off_the_rail": EPISODES}
    assert result.truncations == 0
    assert result.episode_length_s == pytest.approx(0.05 * sum(lengths) / EPISODES)


def test_only_the_first_episode_of_a_world_counts(slider):
    """Only masses that start on the right are pushed: they fail, start again and often fail a second time."""
    right = int((starts(slider) > 0).sum())

    def push_from_the_right(observation):
        return (observation[:, :1] > 0).float()

    result = evaluate(slider, push_from_the_right, episodes=EPISODES, seed=SEED, num_threads=1)
    assert 5 < right < EPISODES - 5
    assert (result.terminations, result.truncations) == ({"off_the_rail": right}, EPISODES - right)


def test_the_same_seed_gives_the_same_episodes(slider):
    def policy(observation):
        return -observation[:, :1] - observation[:, 1:]

    first, second, other = (
        evaluate(slider, policy, episodes=EPISODES, seed=seed, num_threads=1).per_episode for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_actions_of_another_shape(slider):
    with pytest.raises(UserError, match=r"actions of shape \(40, 3\), task 'slider' takes 1 each"):
        evaluate(slider, lambda o: torch.zeros(len(o), 3), episodes=EPISODES, seed=SEED, num_threads=1)


def test_a_fitness_that_is_not_finite_is_no_fitness(slider, monkeypatch):
    monkeypatch.setattr(type(slider), "fitness", lambda self, signals: signals["mass_position"][:, 0] / 0.0)
    with pytest.raises(UserError, match="fitness of task 'slider' is not finite in 40 episodes"):
        evaluate(slider, lambda o: torch.zeros(len(o), 1), episodes=EPISODES, seed=SEED, num_threads=1)


def quantiles(values: list[float]) -> list[float]:
    """5, 25, 50, 75 and 95 %, by NumPy."""
    return np.quantile(np.array(values), (0.05, 0.25, 0.5, 0.75, 0.95)).tolist()


def test_behaviour_is_what_the_signals_were(slider):
    """A mass at rest stays in its place in all of the 40 steps."""
    result = evaluate(slider, lambda o: torch.zeros(len(o), 1), episodes=EPISODES, seed=SEED, num_threads=1)
    assert set(result.behaviour) == set(slider.signal_table.names)
    assert result.behaviour["mass_position"] == [pytest.approx(quantiles(STEPS * starts(slider).tolist()), abs=1e-6)]
    assert result.behaviour["actions"] == [[0.0] * 5]


def test_behaviour_ends_with_the_episode(slider):
    """Under full thrust every mass leaves the rail: the places until then, from the closed form above."""
    places = []
    for x0 in starts(slider).tolist():
        for n in range(1, STEPS + 1):
            places.append(x0 + 4.0 * 0.025**2 * (2 * n) * (2 * n + 1) / 2)
            if abs(places[-1]) > 2.0:
                break
    result = evaluate(slider, lambda o: torch.ones(len(o), 1), episodes=EPISODES, seed=SEED, num_threads=1)
    assert result.behaviour["mass_position"] == [pytest.approx(quantiles(places), abs=1e-4)]
    assert result.behaviour["actions"] == [[1.0] * 5]


def test_behaviour_of_wide_signals_and_long_episodes():
    """Four columns have a row each, five share one; of 100 steps every second is looked at; a nan is a nan."""
    table = SignalTable([Signal(name, dims, "1", "-", "position", "x") for name, dims in (("four", 4), ("five", 5))])
    behaviour = Behaviour(table, 100)
    for step in range(100):
        even = float(step) if step % 2 == 0 else 1e6
        behaviour.add(
            {"four": torch.tensor([[even, 0.0, torch.nan, 1.0]]), "five": torch.full((1, 5), even)},
            torch.tensor([True]),
        )
    found = behaviour.quantiles()
    seen = [float(step) for step in range(0, 100, 2)]
    assert found["four"][0] == pytest.approx(quantiles(seen))
    assert (found["four"][1], found["four"][3]) == ([0.0] * 5, [1.0] * 5)
    assert all(value != value for value in found["four"][2])
    assert found["five"] == [pytest.approx(quantiles(5 * seen))]
