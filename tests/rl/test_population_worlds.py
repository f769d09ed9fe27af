"""One simulation in slices: each is what it would be alone, and none depends on another by one bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rl.population_worlds import PopulationWorlds
from tasks import registry
from tasks.env import make_env
from tasks.errors import UserError
from tasks.randomize import Push, Randomize, Vary
from tasks.sim_native import NativeSimulation

CHASER = str(Path(__file__).with_name("chaser.py"))
SEEDS, N, STEPS = (3, 8, 3), 53, 60
"""60 steps: a time limit, falls off the rail, many goals; so many worlds that a vector of eight is full among those that
are computed again (torch rounds an arcus tangent otherwise outside of one)."""


@pytest.fixture
def actions() -> torch.Tensor:
    """(STEPS, K, N, A), large enough to leave the rail now and then."""
    return torch.randn(STEPS, len(SEEDS), N, 1, generator=torch.Generator().manual_seed(0)).cumsum(0) * 0.3


def rows(k: int) -> slice:
    return slice(k * N, (k + 1) * N)


def test_a_slice_is_the_environment_of_its_seed(actions):
    task = registry.make(CHASER)
    worlds = PopulationWorlds(task, N, SEEDS, num_threads=1)
    alone = [make_env(task, N, seed=seed, num_threads=1) for seed in SEEDS]
    ends = {"off_the_rail": 0, "truncated": 0}
    for k, env in enumerate(alone):
        torch.testing.assert_close(worlds.observe()[k], env.observe())
    for action in actions:
        step = worlds.step(action)
        for k, env in enumerate(alone):
            one = env.step(action[k])
            torch.testing.assert_close(worlds.observe()[k], one.observation)
            for name, value in one.signals.items():
                torch.testing.assert_close(step.signals[name][rows(k)], value)
            assert torch.equal(step.done[rows(k)], one.done) and torch.equal(step.truncated[rows(k)], one.truncated)
            assert torch.equal(worlds.episode_step[k], env.episode_step)
            ends["off_the_rail"] += int(one.reasons["off_the_rail"].sum())
            ends["truncated"] += int(one.truncated.sum())
    assert min(ends.values()) > 10
    goals = torch.stack([env.sim.memory["goal"] for env in alone])
    assert torch.equal(worlds.sim.memory["goal"].view(len(SEEDS), N, 1), goals)
    worlds.close()


@pytest.mark.parametrize("name", [CHASER, "quadcopter-hover"])
def test_worlds_that_differ_do_so_by_their_slice_s_seed(monkeypatch, name):
    """Masses, and pushes where there is a free joint: those of a lone training with this seed."""
    task = registry.make(name)
    push = None if name == CHASER else Push(2.0, (0.1, 0.3))
    monkeypatch.setattr(type(task), "randomize", Randomize((Vary("mass", 0.5, 2.0),), push))
    worlds = PopulationWorlds(task, 6, SEEDS, num_threads=1, randomize=True)
    alone = [make_env(task, 6, seed=seed, num_threads=1, randomize=True) for seed in SEEDS]
    for action in torch.rand(20, 3, 6, worlds.num_actions, generator=torch.Generator().manual_seed(1)) - 0.5:
        worlds.step(action)
        for k, env in enumerate(alone):
            torch.testing.assert_close(worlds.observe()[k], env.step(action[k]).observation)
    assert not torch.equal(worlds.observe()[0], worlds.observe()[2]), "their actions differ"
    monkeypatch.setattr(type(task), "randomize", None)
    with pytest.raises(UserError, match="has no randomize table"):
        PopulationWorlds(task, 6, SEEDS, randomize=True)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["slice by slice", "as on a device"])
def test_a_slice_does_not_depend_on_the_others(actions, monkeypatch, asynchronous):
    """Others act differently and one is started anew in between: not a bit of slice 1 changes."""
    monkeypatch.setattr(NativeSimulation, "asynchronous", asynchronous)
    task = registry.make(CHASER)
    first, second = (PopulationWorlds(task, N, SEEDS, num_threads=1) for _ in range(2))
    for number, action in enumerate(actions):
        other = action.flip(0).roll(number, 1) * 1.7
        other[1] = action[1]
        steps = first.step(action), second.step(other)
        if number == 40:
            second.start_anew(2)
            assert not second.episode_step[2].any() and second.episode_step[1].any()
        assert torch.equal(first.observe()[1], second.observe()[1])
        assert not torch.equal(first.observe()[0], second.observe()[0])
        for name in steps[0].signals:
            assert torch.equal(steps[0].signals[name][rows(1)], steps[1].signals[name][rows(1)]), name


def test_what_a_reset_sets_is_there_when_it_reads(actions):
    """The chaser's reset reads positions that it has just set: goals lie by the starts."""
    worlds = PopulationWorlds(registry.make(CHASER), N, SEEDS, num_threads=1)
    away = (worlds.sim.memory["goal"] - 0.5 * worlds.sim.qpos).abs()
    assert away.max() <= 0.5 and worlds.sim.qpos.abs().max() > 0.9


def test_a_task_with_an_environment_of_its_own_is_refused(monkeypatch):
    task = registry.make(CHASER)
    closed = []

    class Foreign:
        def close(self):
            closed.append(self)

    monkeypatch.setattr(type(task), "build_env", lambda self, num_envs, **_: Foreign())
    with pytest.raises(UserError, match=r"chaser.*one by one"):
        PopulationWorlds(task, N, SEEDS)
    assert closed


def test_a_slice_is_not_stepped_or_steered_by_itself():
    worlds = PopulationWorlds(registry.make(CHASER), N, SEEDS, num_threads=1)
    part = worlds._slices.each[1]
    with pytest.raises(UserError, match="stepped"):
        part.step()
    with pytest.raises(UserError, match="act"):
        part.set_ctrl(torch.zeros(N, 1))
    with pytest.raises(UserError, match=rf"'goal'.*expected \({N}, 1\)"):
        part.memory["goal"] = torch.zeros(len(SEEDS) * N, 1)
