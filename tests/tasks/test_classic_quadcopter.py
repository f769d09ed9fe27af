"""Quadcopter physics against closed forms, signals against MuJoCo's own kinematics, resets and failures."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest
import torch

from tasks.classic.quadcopter import QuadcopterHover
from tasks.env import TaskEnv, make_env

MASS_KG, G, ARM_X_M, ARM_Y_M, DRAG_M = 1.325, 9.81, 0.14, 0.18, 0.0201


def _at(position: tuple[float, float, float], orientation: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0)) -> TaskEnv:
    env = make_env(QuadcopterHover(), 1)
    env.sim.set_state(torch.tensor([0]), torch.tensor([[*position, *orientation]]), torch.zeros(1, 6))
    return env


def _rotor(mass: float, x: float, y: float) -> np.ndarray:
    """Inertia of an ellipsoid (0.13, 0.13, 0.01) m at (x, y, 0): m/5 of the squared half axes, and Steiner's part."""
    own = mass / 5 * np.array([0.13**2 + 0.01**2, 0.13**2 + 0.01**2, 2 * 0.13**2])
    return own + mass * np.array([y * y, x * x, x * x + y * y])


def test_mass_and_inertia_by_hand() -> None:
    model = QuadcopterHover().build_model()
    body = model.body("quadcopter").id
    hull = 0.325 / 5 * np.array([0.05**2 + 0.03**2, 0.16**2 + 0.03**2, 0.16**2 + 0.05**2])
    expected = hull + 4 * _rotor(0.25, ARM_X_M, ARM_Y_M)
    assert model.body_mass[body] == pytest.approx(MASS_KG, rel=1e-6)
    assert sorted(model.body_inertia[body]) == pytest.approx(sorted(expected), rel=1e-4)


def test_zero_action_holds_the_weight() -> None:
    env = _at((0.0, 0.0, 1.0))
    for _ in range(100):
        env.step(torch.zeros(1, 4))
    assert env.sim.qvel.abs().max() < 1e-4
    assert env.sim.qpos[0, :3].tolist() == pytest.approx([0.0, 0.0, 1.0], abs=1e-4)


@pytest.mark.parametrize(("action", "acceleration"), [(-1.0, -G), (1.0, G), (0.5, 0.5 * G)])
def test_thrust_against_gravity(action: float, acceleration: float) -> None:
    """Nothing: free fall. Full thrust is twice the weight: g upwards."""
    env = _at((0.0, 0.0, 2.0))
    for _ in range(10):
        env.step(torch.full((1, 4), action))
    assert env.sim.qvel[0, 2].item() == pytest.approx(acceleration * 0.2, rel=1e-4)


def test_each_rotor_turns_the_body_as_documented() -> None:
    """One rotor 1 N above hover: torque y, -x and +-drag about roll, pitch, yaw, over the moments of inertia."""
    model = QuadcopterHover().build_model()
    inertia = np.zeros((6, 6))
    mujoco.mj_fullM(model, _forward(model), inertia)
    rotors = [(-ARM_X_M, -ARM_Y_M, -1), (-ARM_X_M, ARM_Y_M, 1), (ARM_X_M, ARM_Y_M, -1), (ARM_X_M, -ARM_Y_M, 1)]
    for index, (x, y, spin) in enumerate(rotors):
        data = mujoco.MjData(model)
        data.ctrl[:] = MASS_KG * G / 4
        data.ctrl[index] += 1.0
        mujoco.mj_forward(model, data)
        torque = np.array([y, -x, spin * DRAG_M])
        np.testing.assert_allclose(data.qacc[3:], torque / np.diag(inertia)[3:], rtol=1e-3)
        assert data.qacc[2] == pytest.approx(1.0 / MASS_KG, rel=1e-3)


def _forward(model: mujoco.MjModel) -> mujoco.MjData:
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return data


def test_thrust_acts_along_the_tilted_axis() -> None:
    """At 30 degrees of pitch, hover thrust accelerates forward by g sin and down by g (1 - cos)."""
    half = math.radians(30.0) / 2
    env = _at((0.0, 0.0, 2.0), (math.cos(half), 0.0, math.sin(half), 0.0))
    for _ in range(5):
        env.step(torch.zeros(1, 4))
    velocity = env.sim.qvel[0, :3].tolist()
    assert velocity == pytest.approx([G * 0.5 * 0.1, 0.0, -G * (1 - math.cos(math.pi / 6)) * 0.1], abs=2e-3)


def test_signals_agree_with_mujoco() -> None:
    env = make_env(QuadcopterHover(), 32, seed=3)
    rng = torch.Generator().manual_seed(1)
    qpos = torch.rand(32, 7, generator=rng) * 2 - 1
    qpos[:, 3:] /= qpos[:, 3:].norm(dim=-1, keepdim=True)
    qvel = (torch.rand(32, 6, generator=rng) - 0.5) * 4.0
    env.sim.set_state(torch.arange(32), qpos, qvel)
    signals = env.task.signals(env.sim)
    observation = env.task.observe(signals)
    model = env.sim.model
    data, body = mujoco.MjData(model), model.body("quadcopter").id
    world_velocity, local_velocity = np.zeros(6), np.zeros(6)
    for world in range(32):
        data.qpos[:], data.qvel[:] = qpos[world].numpy(), qvel[world].numpy()
        mujoco.mj_forward(model, data)
        rotation = data.xmat[body].reshape(3, 3)
        # mj_objectVelocity's local frame of a BODY is its inertial frame; XBODY is the frame of the joint.
        mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, body, world_velocity, 0)
        mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, body, local_velocity, 1)
        offset = np.array([0.0, 0.0, 1.0]) - data.xpos[body]
        expected = {
            "position_w": data.xpos[body],
            "up_axis_w": rotation[:, 2],
            "forward_axis_w": rotation[:, 0],
            "linear_velocity_w": world_velocity[3:],
            "linear_velocity_b": local_velocity[3:],
            "angular_velocity_b": local_velocity[:3],
            "target_offset_w": offset,
            "target_offset_b": rotation.T @ offset,
            "target_distance": [np.linalg.norm(offset)],
        }
        for name, value in expected.items():
            np.testing.assert_allclose(signals[name][world], value, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(observation[world, 9:], rotation[2], atol=1e-5)
        assert abs(float(data.xquat[body] @ signals["orientation_w"][world].numpy())) == pytest.approx(1.0, abs=1e-5)


def test_resets_are_those_stated() -> None:
    env = make_env(QuadcopterHover(), 1024, seed=0)
    signals = env.task.signals(env.sim)
    start = -signals["target_offset_w"]
    low, high = torch.tensor([-1.5, -1.5, -0.2]), torch.tensor([1.5, 1.5, 1.5])
    assert (start >= low - 1e-5).all()
    assert (start <= high + 1e-5).all()
    assert (start.amin(dim=0) < low + 0.05).all()
    assert (start.amax(dim=0) > high - 0.05).all()
    tilt = torch.acos(signals["up_axis_w"][:, 2].clamp(max=1.0))
    assert tilt.max() < 0.301
    assert tilt.mean().item() == pytest.approx(0.15, abs=0.02)
    assert env.sim.qvel.abs().max() <= 0.3
    heading = torch.atan2(signals["forward_axis_w"][:, 1], signals["forward_axis_w"][:, 0])
    assert heading.min() < -3.0
    assert heading.max() > 3.0
    assert not any(reason.any() for reason in env.task.terminate(signals).values())


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        ((0.0, 0.0, 1.0), set()),
        ((2.99, 0.0, 1.0), set()),
        ((3.01, 0.0, 1.0), {"too_far"}),
        ((0.0, 0.0, 4.01), {"too_far"}),
        ((0.0, 0.0, 0.31), set()),
        ((0.0, 0.0, 0.29), {"too_low"}),
    ],
)
def test_flights_end_at_their_bounds(position: tuple[float, float, float], expected: set[str]) -> None:
    env = _at(position)
    reasons = env.task.terminate(env.task.signals(env.sim))
    assert {name for name, hit in reasons.items() if hit.item()} == expected


def test_fitness_by_hand() -> None:
    env = _at((0.3, 0.0, 1.4))
    assert env.task.fitness(env.task.signals(env.sim)).item() == pytest.approx(-0.5, abs=1e-6)
    assert env.task.fitness_failed == -3.0
