"""Ball physics against closed forms, signals against MuJoCo's own kinematics, resets and the fall."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest
import torch

from tasks.classic.ball_balance import BallBalance
from tasks.env import make_env

G = 9.81


def _clamped_model() -> mujoco.MjModel:
    """The table made too heavy to move, so that only the ball does."""
    model = BallBalance().build_model()
    model.dof_armature[:2] = 1e6
    return model


@pytest.mark.parametrize("tilt", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("axis", [0, 1])
def test_ball_rolls_down_a_tilted_table(tilt: float, axis: int) -> None:
    """A solid ball that rolls without slip: 5/7 g sin(tilt); it rolls towards + for a positive tilt of either joint."""
    model = _clamped_model()
    data = mujoco.MjData(model)
    data.qpos[axis] = tilt
    downhill = np.zeros(3)
    downhill[axis], downhill[2] = math.cos(tilt), -math.sin(tilt)
    normal = np.zeros(3)
    normal[axis], normal[2] = math.sin(tilt), math.cos(tilt)
    data.qpos[2:5] = np.array([0.0, 0.0, 0.5]) + 0.11 * normal
    speeds = []
    for _ in range(60):
        mujoco.mj_step(model, data)
        speeds.append(float(data.qvel[2:5] @ downhill))
    acceleration = (speeds[-1] - speeds[9]) / (50 * model.opt.timestep)
    assert acceleration == pytest.approx(5 / 7 * G * math.sin(tilt), rel=5e-3)


def test_ball_that_is_not_tilted_keeps_its_speed() -> None:
    model = _clamped_model()
    data = mujoco.MjData(model)
    data.qpos[2:5] = [-0.3, 0.0, 0.61]
    data.qvel[2], data.qvel[6] = 0.3, 3.0
    for _ in range(100):
        mujoco.mj_step(model, data)
    assert data.qvel[2] == pytest.approx(0.3, rel=0.01)
    assert data.qpos[2] == pytest.approx(0.0, abs=0.01)


def test_a_free_ball_falls_freely() -> None:
    env = make_env(BallBalance(), 1)
    qpos = torch.tensor([[0.0, 0.0, 2.0, 0.0, 5.0, 1.0, 0.0, 0.0, 0.0]])
    env.sim.set_state(torch.tensor([0]), qpos, torch.zeros(1, 8))
    for _ in range(10):
        env.sim.step()
    assert env.sim.qvel[0, 4].item() == pytest.approx(-G * 0.2, rel=1e-4)


def test_servo_reaches_its_command_and_the_fastest_one_keeps_the_ball_down() -> None:
    env = make_env(BallBalance(), 1)
    qpos = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.61, 1.0, 0.0, 0.0, 0.0]])
    env.sim.set_state(torch.tensor([0]), qpos, torch.zeros(1, 8))
    for _ in range(20):
        signals = env.step(torch.tensor([[1.0, -0.5]])).signals
        assert abs(signals["ball_position_t"][0, 2].item() - 0.11) < 0.005
    tilt = signals["tilt_angles"][0]
    assert tilt[0].item() == pytest.approx(0.3, abs=0.04)
    assert tilt[1].item() == pytest.approx(-0.15, abs=0.04)
    assert signals["ball_position_w"][0, 0] > 0.05
    assert signals["ball_position_w"][0, 1] < -0.02


def test_signals_agree_with_mujoco() -> None:
    env = make_env(BallBalance(), 32, seed=3)
    rng = torch.Generator().manual_seed(1)
    qpos = torch.rand(32, 9, generator=rng) - 0.5
    qpos[:, :2] *= 0.6
    qpos[:, 4] += 0.7
    qpos[:, 5:] /= qpos[:, 5:].norm(dim=-1, keepdim=True)
    qvel = (torch.rand(32, 8, generator=rng) - 0.5) * 4.0
    env.sim.set_state(torch.arange(32), qpos, qvel)
    signals = env.task.signals(env.sim)
    model = env.sim.model
    data, table, ball = mujoco.MjData(model), model.body("table").id, model.body("ball").id
    velocity, jacobian = np.zeros(6), np.zeros((3, model.nv))
    for world in range(32):
        data.qpos[:], data.qvel[:] = qpos[world].numpy(), qvel[world].numpy()
        mujoco.mj_forward(model, data)
        rotation = data.xmat[table].reshape(3, 3)
        offset = data.xpos[ball] - data.xpos[table]
        mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_BODY, ball, velocity, 0)
        mujoco.mj_jac(model, data, jacobian, None, data.xpos[ball], table)
        carried = jacobian @ data.qvel  # of the table's material at the ball's place
        local = rotation.T @ offset
        expected = {
            "table_normal_w": rotation[:, 2],
            "ball_position_w": data.xpos[ball],
            "ball_position_t": local,
            "ball_distance": [math.hypot(local[0], local[1])],
            "ball_velocity_w": velocity[3:],
            "ball_angular_velocity_w": velocity[:3],
            "ball_velocity_t": rotation.T @ (velocity[3:] - carried),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(signals[name][world], value, atol=2e-5, err_msg=name)


def test_resets_are_those_stated() -> None:
    env = make_env(BallBalance(), 1024, seed=0)
    signals = env.task.signals(env.sim)
    distance = signals["ball_distance"][:, 0]
    speed = signals["ball_velocity_w"].norm(dim=-1)
    assert distance.max() <= 0.25 + 1e-6
    # Uniform over the disc: a quarter of the balls within half the radius; 5 standard errors are 0.07.
    assert (distance < 0.125).float().mean().item() == pytest.approx(0.25, abs=0.07)
    assert speed.min() >= 0.2 - 1e-6
    assert speed.max() <= 0.6 + 1e-6
    assert torch.equal(signals["tilt_angles"], torch.zeros(1024, 2))
    # No slip: the velocity of the point of contact, v + w x (0, 0, -r), vanishes.
    down = torch.tensor([0.0, 0.0, -0.1]).expand(1024, 3)
    contact = signals["ball_velocity_w"] + torch.linalg.cross(signals["ball_angular_velocity_w"], down)
    assert contact.abs().max() < 1e-6


@pytest.mark.parametrize(("x", "fell"), [(0.0, False), (0.499, False), (0.501, True), (-0.501, True)])
def test_the_ball_falls_at_the_rim(x: float, fell: bool) -> None:
    env = make_env(BallBalance(), 1)
    qpos = torch.tensor([[0.0, 0.0, x, 0.0, 0.61, 1.0, 0.0, 0.0, 0.0]])
    env.sim.set_state(torch.tensor([0]), qpos, torch.zeros(1, 8))
    assert env.task.terminate(env.task.signals(env.sim))["ball_fell"].item() is fell


def test_a_hand_written_controller_keeps_the_ball() -> None:
    """The task can be solved: a PD law on the ball keeps every one of 64 for 10 s."""
    env = make_env(BallBalance(), 64, seed=7, num_threads=2)
    action = torch.zeros(64, 2)
    for _ in range(env.max_episode_steps):
        step = env.step(action)
        assert not step.terminated.any()
        action = -4.0 * step.signals["ball_position_t"][:, :2] - 4.0 * step.signals["ball_velocity_t"][:, :2]
    assert step.signals["ball_distance"].max() < 0.15
