"""Cart-pole physics against closed forms, signals against MuJoCo's own kinematics, resets and terminations."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest
import torch

from tasks.classic.cartpole import CartpoleBalance, CartpoleSwingup
from tasks.env import make_env
from tasks.task import Task

CART_KG, POLE_KG, LENGTH_M, G = 1.0, 0.1, 1.0, 9.81


def _periods_s(model: mujoco.MjModel, theta0: float, steps: int) -> float:
    """Mean period of the hanging pole, from its upward passes through the vertical."""
    data = mujoco.MjData(model)
    data.qpos[1] = math.pi + theta0
    times, previous = [], theta0
    for _ in range(steps):
        mujoco.mj_step(model, data)
        now = data.qpos[1] - math.pi
        if previous < 0 <= now:
            times.append(data.time - model.opt.timestep * now / (now - previous))
        previous = now
    return float(np.diff(times).mean())


def test_small_oscillation_of_the_free_cart_and_pole() -> None:
    """w^2 = (M + m) m g l / ((M + m) I - (m l)^2) with l = L / 2 and I = m L^2 / 3, from the linearised Lagrangian."""
    lever, inertia, total = LENGTH_M / 2, POLE_KG * LENGTH_M**2 / 3, CART_KG + POLE_KG
    omega = math.sqrt(total * POLE_KG * G * lever / (total * inertia - (POLE_KG * lever) ** 2))
    measured = _periods_s(CartpoleSwingup().build_model(), 0.02, 1000)
    assert measured == pytest.approx(2 * math.pi / omega, rel=2e-3)


def test_small_oscillation_of_the_pole_on_a_heavy_cart() -> None:
    """A uniform rod about its end: T = 2 pi sqrt(2 L / (3 g))."""
    model = CartpoleSwingup().build_model()
    model.body_mass[model.body("cart").id] = 1e6
    expected = 2 * math.pi * math.sqrt(2 * LENGTH_M / (3 * G))
    assert _periods_s(model, 0.02, 1000) == pytest.approx(expected, rel=2e-3)


def test_full_action_pushes_with_ten_newton() -> None:
    """The hanging pole follows little in the first instants: momentum gained is force times time, exactly."""
    env = make_env(CartpoleSwingup(), 1)
    env.sim.set_state(torch.tensor([0]), torch.tensor([[0.0, math.pi]]), torch.zeros(1, 2))
    step = env.step(torch.ones(1, 1))
    pole_cm_velocity = step.signals["cart_velocity"] + (
        0.5 * LENGTH_M * torch.cos(step.signals["pole_angle"]) * step.signals["pole_angular_velocity"]
    )
    momentum = CART_KG * step.signals["cart_velocity"] + POLE_KG * pole_cm_velocity
    assert momentum.item() == pytest.approx(10.0 * 0.04, rel=1e-3)


def test_signals_agree_with_mujoco() -> None:
    env = make_env(CartpoleSwingup(), 32, seed=3)
    rng = torch.Generator().manual_seed(1)
    qpos = (torch.rand(32, 2, generator=rng) - 0.5) * torch.tensor([4.0, 14.0])
    qvel = (torch.rand(32, 2, generator=rng) - 0.5) * 6.0
    env.sim.set_state(torch.arange(32), qpos, qvel)
    signals = env.task.signals(env.sim)
    model = env.sim.model
    data, body, jacobian = mujoco.MjData(model), model.body("pole").id, np.zeros((3, 2))
    for world in range(32):
        data.qpos[:], data.qvel[:] = qpos[world].numpy(), qvel[world].numpy()
        mujoco.mj_forward(model, data)
        up = data.xmat[body].reshape(3, 3)[:, 2]
        tip = data.xpos[body] + LENGTH_M * up
        mujoco.mj_jac(model, data, jacobian, None, tip, body)
        np.testing.assert_allclose(signals["pole_direction_w"][world], up, atol=1e-5)
        np.testing.assert_allclose(signals["pole_tip_position_w"][world], tip, atol=1e-5)
        np.testing.assert_allclose(signals["pole_tip_velocity_w"][world], jacobian @ data.qvel, atol=1e-4)
        assert signals["cart_distance"][world].item() == pytest.approx(abs(float(data.qpos[0])), abs=1e-6)
        assert abs(signals["pole_angle"][world].item()) <= math.pi
        assert math.cos(signals["pole_angle"][world].item()) == pytest.approx(up[2], abs=1e-5)


@pytest.mark.parametrize(
    ("task", "centre", "bounds"),
    [
        (CartpoleBalance(), [0.0, 0.0, 0.0, 0.0], [1.0, 0.05, 0.5, 0.05]),
        (CartpoleSwingup(), [0.0, math.pi, 0.0, 0.0], [0.1, 0.1, 0.1, 0.1]),
    ],
    ids=["balance", "swingup"],
)
def test_resets_stay_within_their_bounds_and_fill_them(task: Task, centre: list[float], bounds: list[float]) -> None:
    env = make_env(task, 512, seed=0)
    offset = (torch.cat([env.sim.qpos, env.sim.qvel], dim=-1) - torch.tensor(centre)) / torch.tensor(bounds)
    assert (offset.abs() <= 1 + 1e-5).all()
    assert (offset.amax(dim=0) > 0.95).all()
    assert (offset.amin(dim=0) < -0.95).all()


@pytest.mark.parametrize(
    ("x", "degrees", "expected"),
    [
        (0.0, 11.9, set()),
        (0.0, 12.1, {"pole_fell"}),
        (0.0, -12.1, {"pole_fell"}),
        (2.39, 0.0, set()),
        (2.41, 0.0, {"cart_off_track"}),
        (-2.41, 0.0, {"cart_off_track"}),
        (0.0, 360.0, set()),
    ],
)
def test_balance_ends_at_its_bounds(x: float, degrees: float, expected: set[str]) -> None:
    env = make_env(CartpoleBalance(), 1)
    env.sim.set_state(torch.tensor([0]), torch.tensor([[x, math.radians(degrees)]]), torch.zeros(1, 2))
    reasons = env.task.terminate(env.task.signals(env.sim))
    assert {name for name, hit in reasons.items() if hit.item()} == expected


def test_swingup_never_ends_early_and_the_bumpers_hold() -> None:
    env = make_env(CartpoleSwingup(), 4)
    for step in range(1, env.max_episode_steps + 1):
        result = env.step(torch.ones(4, 1))
        assert not result.terminated.any()
        assert result.truncated.all().item() == (step == 250)
        assert result.signals["cart_position"].max() < 2.75


@pytest.mark.parametrize(
    ("x", "degrees", "value"),
    [(0.0, 0.0, 1.0), (0.49, 18.0, 1.0), (0.51, 0.0, 0.0), (0.0, 18.5, 0.0), (0.0, 180.0, 0.0)],
)
def test_swingup_fitness_by_hand(x: float, degrees: float, value: float) -> None:
    env = make_env(CartpoleSwingup(), 1)
    env.sim.set_state(torch.tensor([0]), torch.tensor([[x, math.radians(degrees)]]), torch.zeros(1, 2))
    assert env.task.fitness(env.task.signals(env.sim)).item() == value
