"""What holds for each of the four classic tasks: sane worlds, seeded resets, hidden fitness, honest baselines."""

from __future__ import annotations

import ast

import pytest
import torch

from rewards.function import build_reward
from rewards.gate import admit
from rewards.library.library import load
from tasks import registry
from tasks.env import make_env, sample_signals
from tasks.source_view import designer_source
from tasks.task import Task

NAMES = ("cartpole-balance", "cartpole-swingup", "ball-balance", "quadcopter-hover")
NUM_ENVS = 64


@pytest.fixture(scope="module", params=NAMES)
def task(request: pytest.FixtureRequest) -> Task:
    return registry.make(request.param)


@pytest.fixture(scope="module")
def samples(task: Task) -> dict[str, torch.Tensor]:
    return sample_signals(task, NUM_ENVS, num_steps=60, seed=3)


def test_full_speed_random_play_stays_finite_and_never_diverges(task: Task) -> None:
    env = make_env(task, NUM_ENVS, seed=1, num_threads=2)
    rng = torch.Generator().manual_seed(0)
    for step in range(300):
        if step % 10 == 0:
            held = torch.randint(0, 2, (NUM_ENVS, env.num_actions), generator=rng) * 2.0 - 1.0
        result = env.step(held)
        assert torch.isfinite(result.observation).all()
        assert all(torch.isfinite(signal).all() for signal in result.signals.values())
        assert not result.reasons["diverged"].any()
    env.close()


def test_signals_match_their_table(task: Task) -> None:
    env = make_env(task, 3)
    task.signal_table.validate(env.step(torch.zeros(3, env.num_actions)).signals, 3)
    env.close()


def test_equal_seeds_give_equal_episodes_and_others_do_not(task: Task) -> None:
    first, second, other = (make_env(task, 8, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first.observe(), second.observe())
    assert not torch.equal(first.observe(), other.observe())
    assert not torch.equal(first.reset(), second.observe()), "a second episode must not repeat the first"


def test_reset_leaves_other_worlds_alone(task: Task) -> None:
    env = make_env(task, 6, seed=2)
    env.step(torch.full((6, env.num_actions), 0.5))
    before = env.sim.qpos.clone()
    task.reset(env.sim, torch.tensor([1, 4]), torch.Generator().manual_seed(0))
    changed = (env.sim.qpos != before).any(dim=-1)
    assert changed.tolist() == [False, True, False, False, True, False]


def test_actions_are_remembered_for_two_steps(task: Task) -> None:
    env = make_env(task, 4)
    first, second = torch.full((4, env.num_actions), 0.25), torch.full((4, env.num_actions), 7.0)
    env.step(first)
    signals = env.step(second).signals
    assert torch.equal(signals["previous_actions"], first)
    assert torch.equal(signals["actions"], torch.ones_like(second)), "actions are clipped"


def test_doing_nothing_does_not_solve_it(task: Task) -> None:
    """Bounds well below what a trained policy reaches: 9.5 s, 0.6, 9.5 s, -0.45 m."""
    worst_allowed = {"cartpole-balance": 3.0, "cartpole-swingup": 0.05, "ball-balance": 3.0, "quadcopter-hover": -1.5}
    env = make_env(task, NUM_ENVS, seed=4, num_threads=2)
    alive, total = torch.ones(NUM_ENVS, dtype=torch.bool), torch.zeros(NUM_ENVS)
    for _ in range(env.max_episode_steps):
        result = env.step(torch.zeros(NUM_ENVS, env.num_actions))
        alive &= ~result.terminated
        failed = torch.full((NUM_ENVS,), task.fitness_failed)
        total += torch.where(alive, task.fitness(result.signals), failed) / env.max_episode_steps
    env.close()
    assert total.mean() < worst_allowed[task.name]


def test_designer_reads_no_fitness(task: Task) -> None:
    source = designer_source(task)
    ast.parse(source)
    assert "def signals" in source
    assert "def terminate" in source
    hidden = ["fitness", "0.95", "18", "reward"] if task.name == "cartpole-swingup" else ["fitness", "reward"]
    assert not [word for word in hidden if word in source.lower()]


@pytest.mark.parametrize("kind", ["human", "sparse"])
def test_gate_admits_the_library(task: Task, samples: dict[str, torch.Tensor], kind: str) -> None:
    fewer = {name: value[:16] for name, value in samples.items()}
    verdict = admit(load(task.name, kind).text, task.signal_table, [samples, fewer])
    assert verdict.accepted, verdict.explain()
    assert verdict.components


def test_sparse_reward_is_the_fitness(task: Task, samples: dict[str, torch.Tensor]) -> None:
    wide = {name: torch.cat([value, 0.1 * value]) for name, value in samples.items()}
    if task.name == "cartpole-swingup":
        # Random play hardly ever swings up: put half of the poles and carts near the goal.
        angle = torch.linspace(-0.6, 0.6, 2 * NUM_ENVS)
        wide["pole_direction_w"] = torch.stack([angle.sin(), torch.zeros_like(angle), angle.cos()], dim=-1)
        wide["cart_distance"] = torch.linspace(0.0, 1.0, 2 * NUM_ENVS)[torch.randperm(2 * NUM_ENVS)][:, None]
        assert 0 < task.fitness(wide).mean() < 1
    total, _ = build_reward(load(task.name, "sparse").text, task.signal_table)(wide)
    torch.testing.assert_close(total, task.fitness(wide))


def test_human_reward_prefers_the_goal(task: Task) -> None:
    """Each human reward ranks a state at the goal above the same state away from it."""
    table = task.signal_table
    goal = {signal.name: torch.zeros(2, signal.dims) for signal in table}
    for name in ("pole_direction_w", "up_axis_w"):
        if name in goal:
            goal[name][:, 2] = 1.0
    if task.name.startswith("cartpole"):
        goal["pole_angle"][1] = 0.15
        goal["pole_direction_w"][1] = torch.tensor([0.149, 0.0, 0.989])
    else:
        goal["ball_distance" if task.name == "ball-balance" else "target_distance"][1] = 0.4
    total, _ = build_reward(load(task.name, "human").text, table)(goal)
    assert total[0] > total[1]
