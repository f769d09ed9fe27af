"""Statistics of training episodes, counted by hand. The slider's time limit is 40 steps of 0.05 s."""

from __future__ import annotations

import pytest
import torch

from rl.rsl_adapter import RslVecEnv
from rl.statistics import TrainingStatistics
from tasks.env import make_env


def reward(signals):
    """One per step, and what the mass's place is."""
    one = torch.ones(len(signals["actions"]))
    return one, {"one": one, "place": signals["mass_position"][:, 0].clone()}


@pytest.fixture
def env(slider):
    made = make_env(slider, 3, seed=3, num_threads=1)
    yield made
    made.close()


def test_shortened_first_episodes_are_left_out(env):
    """Worlds at rest, started at steps 0, 10 and 39: their first ends come after 40, 30 and 1 steps, whole
    ones after 40, 70 and 41."""
    vec = RslVecEnv(env, reward)
    places = env.sim.qpos[:, 0].clone()
    vec.episode_length_buf = torch.tensor([0, 10, 39])
    statistics = TrainingStatistics(env)
    collected = []
    for step in range(1, 71):
        if step == 41:  # the second episode of world 2 is over now, still at rest but elsewhere
            places[2] = env.sim.qpos[2, 0]
        vec.step(torch.zeros(3, 1))
        assert vec.last is not None
        statistics.add(vec.last)
        if step in (30, 40, 41, 70):
            collected.append(statistics.collect())
    shortened, first, second, third = collected
    assert (shortened["fitness"], shortened["episode_length_s"], shortened["episodes"]) == (None, None, 0)
    assert (shortened["ended"], shortened["truncations"]) == (2, 0)
    assert (first["episodes"], first["truncations"], first["terminations"]) == (1, 1, {})
    assert first["fitness"] == pytest.approx(-abs(places[0].item()), abs=1e-5)
    assert first["components"]["place"]["mean"] == pytest.approx(places[0].item(), abs=1e-5)
    assert first["reward_mean"] == pytest.approx(1.0)
    assert second["fitness"] == pytest.approx(-abs(places[2].item()), abs=1e-5)
    assert [c["episode_length_s"] for c in (first, second, third)] == pytest.approx([2.0] * 3)


def test_failures_are_counted_by_reason(env):
    """World 0 leaves the rail, in its first and whole episode; worlds 1 and 2 go on."""
    env.sim.set_state(torch.tensor([0]), torch.tensor([[1.99]]), torch.tensor([[2.0]]))
    vec = RslVecEnv(env, reward)
    statistics = TrainingStatistics(env)
    vec.step(torch.zeros(3, 1))
    assert vec.last is not None
    statistics.add(vec.last)
    collected = statistics.collect()
    assert collected["terminations"] == {"off_the_rail": 1}
    assert (collected["truncations"], collected["diverged"], collected["episodes"]) == (0, 0, 1)
    # One step at 1.99 + 2 x 0.05 m, and 39 missed at -2 each.
    assert collected["fitness"] == pytest.approx((-2.09 - 39 * 2.0) / 40, abs=1e-5)
    assert collected["episode_length_s"] == pytest.approx(0.05)
