"""anymal-velocity and g1-velocity: commands, feet and torques against MuJoCo's own C functions and hand-computed numbers."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

from rewards.function import build_reward
from rewards.gate import admit
from rewards.library.library import load
from rl.episode_fitness import EpisodeFitness
from tasks import registry
from tasks.env import make_env, sample_signals
from tasks.robots import anymal_c, g1
from tasks.robots.menagerie import missing_reason

ROBOTS = {"anymal-velocity": anymal_c, "g1-velocity": g1}
COMMAND_STEPS = 200
"""4 s at 50 Hz."""


@pytest.fixture(scope="module", params=sorted(ROBOTS))
def task(request):
    reason = missing_reason(ROBOTS[request.param].ROBOT)
    if reason:
        pytest.skip(reason)
    return registry.make(request.param)


@pytest.fixture(scope="module")
def robot(task):
    return ROBOTS[task.name]


@pytest.fixture(scope="module")
def model(task):
    return task.build_model()


@pytest.fixture(scope="module")
def samples(task):
    return sample_signals(task, 24, num_steps=40, seed=3, num_threads=1)


@pytest.fixture
def env(task):
    env = make_env(task, 4, seed=5, num_threads=1)
    yield env
    env.close()


def command_of(signals) -> torch.Tensor:
    return torch.cat([signals["command_velocity_b"], signals["command_yaw_rate"]], dim=-1)


def fallen(signals, task) -> torch.Tensor:
    return torch.stack(list(task.terminate(signals).values())).any(dim=0)


def test_signals_agree_with_mujoco(task, robot, model):
    """Falling robots in any pose: every measured signal against the C engine's kinematics and forces."""
    env = make_env(task, 6, seed=2, num_threads=1)
    rng = torch.Generator().manual_seed(1)
    for _ in range(6):
        signals = env.step(torch.rand(6, model.nu, generator=rng) * 2.0 - 1.0).signals
    task.signal_table.validate(signals, 6)
    base = model.jnt_bodyid[0]
    feet = [[name] for name in anymal_c.FEET] if robot is anymal_c else [g1.FOOT_SPHERES[:4], g1.FOOT_SPHERES[4:]]
    for world in range(6):
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:] = env.sim.qpos[world].double().numpy(), env.sim.qvel[world].double().numpy()
        data.ctrl[:] = task_targets(task, robot, signals["actions"][world])
        mujoco.mj_forward(model, data)
        velocity = np.zeros(6)
        mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, base, velocity, 1)
        expected = {
            "base_height": data.xpos[base, 2:],
            "base_linear_velocity_b": velocity[3:],
            "base_angular_velocity_b": velocity[:3],
            "projected_gravity_b": -data.xmat[base].reshape(3, 3)[2],
            "joint_pos_offset": data.qpos[7:] - robot.STAND_POSE_RAD,
            "joint_vel": data.qvel[6:],
            "joint_torque": data.actuator_force,
            "foot_height": [min(data.geom(n).xpos[2] for n in foot) - robot.FOOT_RADIUS_M for foot in feet],
            "foot_contact": [touches(model, data, foot) for foot in feet],
        }
        for name, value in expected.items():
            assert np.allclose(signals[name][world].numpy(), value, rtol=1e-4, atol=2e-5), name
    assert 0.0 < signals["foot_contact"].mean() < 1.0, "some feet are down and some are not"
    env.close()


def task_targets(task, robot, actions: torch.Tensor) -> np.ndarray:
    """Joint targets that actions call for, from the scales that the task's words state."""
    if robot is anymal_c:
        return np.array(robot.STAND_POSE_RAD) + actions.double().numpy()
    scale = [0.5 * g1.motor(joint).torque_limit_n_m / g1.servo(joint).stiffness for joint in g1.JOINTS]
    assert f"knee {scale[3]:.2f}" in task.action_doc and f"wrist pitch and yaw {scale[20]:.2f}" in task.action_doc
    return np.array(robot.STAND_POSE_RAD) + actions.double().numpy() * scale


def touches(model, data, foot) -> float:
    ids = {model.geom(name).id for name in foot}
    return float(any(ids & set(contact.geom.tolist()) for contact in data.contact))


def test_the_speed_of_the_feet_is_that_of_their_positions(task, robot, env):
    """Sensors against a difference of positions over one short physics step."""
    name = anymal_c.FEET[1] if robot is anymal_c else "right_foot"
    env.step(torch.rand(4, env.num_actions, generator=torch.Generator().manual_seed(3)) - 0.5)
    speed = task.signals(env.sim)["foot_speed"][2, 1]
    data = mujoco.MjData(env.sim.model)
    data.qpos[:], data.qvel[:] = env.sim.qpos[2].double().numpy(), env.sim.qvel[2].double().numpy()
    mujoco.mj_forward(env.sim.model, data)
    place = data.geom(name).xpos if robot is anymal_c else data.site(name).xpos
    before = place.copy()
    mujoco.mj_integratePos(env.sim.model, data.qpos, data.qvel, 1e-6)
    mujoco.mj_forward(env.sim.model, data)
    assert float(speed) == pytest.approx(np.hypot(*(place - before)[:2]) / 1e-6, rel=1e-3)


def test_commands_hold_four_seconds_are_in_range_and_seeded(task):
    envs = [make_env(task, 40, seed=seed, num_threads=1) for seed in (1, 1, 2)]
    first, same, other = [command_of(task.signals(env.sim)) for env in envs]
    assert torch.equal(first, same) and not torch.equal(first, other)
    limit = torch.tensor([1.0, 0.5, 1.0])
    assert (first.abs() <= limit).all() and (first.abs().amax(dim=0) > 0.8 * limit).all()
    standing = (first == 0.0).all(dim=-1).sum()
    assert 1 <= standing <= 12, "about a tenth stands still"
    env, still = envs[0], torch.zeros(40, envs[0].num_actions)
    alive = torch.ones(40, dtype=torch.bool)
    for _ in range(COMMAND_STEPS - 1):
        step = env.step(still)
        alive &= ~step.done
        assert torch.equal(command_of(step.signals)[alive], first[alive])
    step = env.step(still)
    assert torch.equal(command_of(step.signals)[alive], first[alive]), "the step is judged by the command it was told"
    assert torch.equal(step.observation, task.observe(task.signals(env.sim)))
    changed = (command_of(task.signals(env.sim)) != first).any(dim=-1)
    if task.name == "anymal-velocity":
        assert alive.all(), "ANYmal stands on its servos alone"
        assert (changed | (first == 0.0).all(dim=-1)).all()
    for env in envs:
        env.close()


def test_feet_count_their_time(task, robot, env):
    """Dropped from a height, and set down: times in the air and on the ground by the number of steps."""
    qpos = env.sim.qpos.clone()
    qpos[:, 2] += 0.05
    env.sim.set_state(torch.arange(4), qpos, torch.zeros(4, env.sim.model.nv))
    down = torch.zeros(4, env.task.signal_table["foot_contact"].dims, dtype=torch.bool)
    air, touchdowns = torch.zeros(down.shape), 0
    for _ in range(12):
        signals = env.step(torch.zeros(4, env.num_actions)).signals
        down = signals["foot_contact"] > 0
        if robot is anymal_c:
            landed = down & (air > 0.0)
            assert torch.equal(signals["foot_touchdown"] > 0, landed)
            expected = torch.where(down, air, air + 0.02)
            touchdowns += int(landed.sum())
        else:
            expected = torch.where(down, 0.0, air + 0.02)
            assert ((signals["foot_contact_time"] > 0) == down).all()
            touchdowns += int((down & (air > 0.0)).sum())
        assert torch.allclose(signals["foot_air_time"], expected)
        air = torch.where(down, 0.0, air + 0.02)
    assert touchdowns >= 4, "they landed"


def test_each_failure_fires_alone(task, robot, env):
    qpos = env.sim.qpos.clone()
    qpos[1, 2] = robot.MIN_HEIGHT_M - 0.01
    qpos[2, 3:7] = torch.tensor([0.766, 0.0, 0.643, 0.0])  # 80 degrees forward
    qpos[3, 3:7] = torch.tensor([0.866, 0.5, 0.0, 0.0])  # 60 degrees to the side
    env.sim.set_state(torch.arange(4), qpos, torch.zeros(4, env.sim.model.nv))
    fired = {reason: hit.tolist() for reason, hit in task.terminate(task.signals(env.sim)).items()}
    assert fired == {"base_too_low": [False, True, False, False], "tilted": [False, False, True, False]}


def test_falling_never_pays(task):
    """Whatever is commanded, an episode on one's feet without a step scores more than one that falls at once."""
    signals = {s.name: torch.zeros(8, s.dims) for s in task.signal_table}
    corners = torch.tensor([[x, y, w] for x in (-1.0, 1.0) for y in (-0.5, 0.5) for w in (-1.0, 1.0)])
    signals["command_velocity_b"], signals["command_yaw_rate"] = corners[:, :2], corners[:, 2:]
    standing = task.fitness(signals)
    assert torch.allclose(standing, torch.full((8,), -2.25))
    tracker = EpisodeFitness(8, 500, task.fitness_reduce, task.fitness_failed)
    done = torch.ones(8, dtype=torch.bool)
    fell = tracker.add(task.fitness(signals), done, torch.zeros(8, dtype=torch.bool))
    assert (fell < standing - 1.0).all()


def test_a_thousand_random_steps_do_not_diverge_and_repeat_bitwise(task):
    envs = [make_env(task, worlds, seed=4, num_threads=1) for worlds in (3, 3)]
    rng = torch.Generator().manual_seed(9)
    for step in range(1000):
        if step % 4 == 0:
            actions = torch.rand(3, envs[0].num_actions, generator=rng) * 2.0 - 1.0
        first, second = (env.step(actions) for env in envs) if step < 100 else (envs[0].step(actions), None)
        if second is not None:
            assert torch.equal(first.observation, second.observation)
            assert all(torch.equal(first.signals[name], second.signals[name]) for name in first.signals)
        assert not first.reasons["diverged"].any() and torch.isfinite(first.observation).all()
        assert first.signals["base_linear_velocity_b"].abs().max() < 10.0
    for env in envs:
        env.close()


def test_actions_of_zero_keep_the_anymal_standing():
    reason = missing_reason(anymal_c.ROBOT)
    if reason:
        pytest.skip(reason)
    env = make_env(registry.make("anymal-velocity"), 4, seed=0, num_threads=1)
    for _ in range(100):
        signals = env.step(torch.zeros(4, 12)).signals
    assert signals["foot_contact"].all() and (signals["base_height"] - 0.5).abs().max() < 0.03
    assert signals["base_linear_velocity_b"].abs().max() < 0.05
    env.close()


def test_the_sparse_reward_is_the_fitness(task, samples):
    total, _ = build_reward(load(task.name, "sparse").text, task.signal_table)(samples)
    assert total.abs().max() > 0.1
    assert torch.allclose(total, task.fitness(samples), rtol=1e-6)


@pytest.mark.parametrize("kind", ["human", "sparse"])
def test_library_rewards_pass_the_gate(task, samples, kind):
    verdict = admit(load(task.name, kind).text, task.signal_table, [samples, {n: t[:8] for n, t in samples.items()}])
    assert verdict.accepted, verdict.explain()


def test_the_human_reward_of_one_state_by_hand(task):
    signals = {s.name: torch.zeros(1, s.dims) for s in task.signal_table}
    signals["command_velocity_b"][0] = torch.tensor([0.8, 0.0])
    signals["base_linear_velocity_b"][0] = torch.tensor([0.3, 0.0, 0.2])  # error 0.5 m/s
    signals["base_angular_velocity_b"][0] = torch.tensor([2.0, 0.0, 0.5])
    signals["projected_gravity_b"][0] = torch.tensor([0.1, 0.0, -0.995])
    signals["joint_torque"][0, :2] = 40.0
    signals["actions"][0, 5] = 0.5
    tracking = np.exp(-1.0)
    if task.name == "anymal-velocity":
        signals["foot_touchdown"][0, 2], signals["foot_air_time"][0] = 1.0, torch.tensor([0.1, 0.0, 0.3, 0.0])
        expected = (
            1.5 * tracking + 2.0 - 2 * 0.04 - 0.05 * 4 - 5 * 0.01 - 2.5e-5 * 3200 - 0.04 * 0.25 + 0.5 * (0.3 - 0.5)
        )
    else:
        signals["joint_pos_offset"][0, [1, 0, 14]] = torch.tensor([0.2, 0.9, 0.3])  # hip roll, hip pitch (free), waist
        signals["joint_pos_offset"][0, 4] = 0.9168  # an ankle 0.1 rad beyond 90 % of its range
        signals["foot_contact"][0, 0], signals["foot_speed"][0] = 1.0, torch.tensor([0.5, 2.0])
        signals["foot_contact_time"][0, 0], signals["foot_air_time"][0, 1] = 0.5, 0.24
        costs = 0.2 * 0.04 + 0.05 * 4 + 0.01 + 2e-6 * 3200 + 0.02 * 0.25 + 0.1 + 0.1 * 0.5 + 0.1 * 0.5
        expected = 2.0 * tracking + 2.0 - costs + 0.75 * 0.24
    total, parts = build_reward(load(task.name, "human").text, task.signal_table)(signals)
    assert float(total[0]) == pytest.approx(expected, abs=2e-4)
    assert float(total[0]) == pytest.approx(sum(float(part[0]) for part in parts.values()), abs=1e-5)
