"""ant-run and humanoid-run against MuJoCo's own C functions, mechanics and hand-computed numbers."""

from __future__ import annotations

import math

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
from tasks.locomotion import ant, humanoid
from tasks.sim_native import NativeSimulation

NAMES = ("ant-run", "humanoid-run")
ANT_MASS_KG = 0.911
"""By hand, density 5: ball 4/3 pi 0.25^3, 8 capsules of length 0.283 m and 4 of 0.566 m with radius 0.08
m."""
HUMANOID_MASS_KG = 40.5

MAX_SPEED_M_S = {"ant-run": 10.0, "humanoid-run": 8.0}
"""Of a torso thrown about by random torques. A step too large for the joints' speed shows as tens to
thousands."""

ANT_MIRROR = ([2, 3, 0, 1, 6, 7, 4, 5], [-1.0, 1.0] * 4)
"""Left and right swapped; hips turn the other way, knees bend alike."""
LEFT_LEG, RIGHT_LEG, LEFT_ARM, RIGHT_ARM = range(3, 9), range(9, 15), range(15, 18), range(18, 21)
HUMANOID_MIRROR = ([0, 1, 2, *RIGHT_LEG, *LEFT_LEG, *RIGHT_ARM, *LEFT_ARM], [-1.0, 1.0, -1.0] + [1.0] * 18)
"""The waist turns and leans the other way."""


@pytest.fixture(scope="module", params=NAMES)
def task(request):
    return registry.make(request.param)


@pytest.fixture(scope="module")
def model(task):
    return task.build_model()


@pytest.fixture(scope="module")
def samples(task):
    return sample_signals(task, 64, num_steps=60, seed=3)


def data_at(model, qpos, qvel) -> mujoco.MjData:
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = qpos, qvel
    mujoco.mj_forward(model, data)
    return data


def random_states(task, model, count: int, height_m: float) -> tuple[torch.Tensor, torch.Tensor]:
    """States in any orientation, joints within their ranges, everything moving. (count, nq), (count, nv)."""
    rng = torch.Generator().manual_seed(11)
    qpos = torch.zeros(count, model.nq)
    qpos[:, :3] = torch.randn(count, 3, generator=rng)
    qpos[:, 2] += height_m
    qpos[:, 3:7] = torch.nn.functional.normalize(torch.randn(count, 4, generator=rng), dim=-1)
    low, high = torch.tensor(model.jnt_range[1:], dtype=torch.float32).T
    qpos[:, 7:] = low + (high - low) * (0.25 + 0.5 * torch.rand(count, model.nu, generator=rng))
    return qpos, torch.randn(count, model.nv, generator=rng)


def test_models_are_what_their_files_state(task, model):
    joints = [model.joint(j).name for j in range(1, model.njnt)]
    assert joints == [model.actuator(a).name for a in range(model.nu)]
    assert list(model.actuator_trnid[:, 0]) == list(range(1, model.njnt)), "one motor for each joint, in order"
    assert np.array_equal(model.actuator_ctrlrange, [[-1.0, 1.0]] * model.nu)
    assert model.camera(task.camera) is not None
    mass = float(model.body_mass.sum())
    ranges = np.rad2deg(model.jnt_range[1:])
    if task.name == "ant-run":
        ball = 4 / 3 * math.pi * 0.25**3
        lengths = [math.hypot(0.2, 0.2)] * 8 + [math.hypot(0.4, 0.4)] * 4
        capsules = sum(4 / 3 * math.pi * 0.08**3 + math.pi * 0.08**2 * length for length in lengths)
        assert mass == pytest.approx(5.0 * (ball + capsules), rel=1e-6)
        assert mass == pytest.approx(ANT_MASS_KG, abs=1e-3)
        assert (model.nq, model.nv, model.nu) == (15, 14, 8)
        assert np.allclose(model.actuator_gear[:, 0], 15.0)
        assert np.allclose(ranges, [[-40, 40], [30, 100]] * 4)
        limits = ant.JOINT_RANGE_RAD
    else:
        assert mass == pytest.approx(HUMANOID_MASS_KG, abs=0.1)
        assert (model.nq, model.nv, model.nu) == (28, 27, 21)
        by_name = {model.actuator(a).name: model.actuator_gear[a, 0] for a in range(model.nu)}
        names = ("left_hip_y", "right_knee", "left_ankle_x", "waist_y")
        assert [by_name[name] for name in names] == [135, 90, 22.5, 67.5]
        limits = humanoid.JOINT_RANGE_RAD
    assert np.allclose(limits.numpy(), model.jnt_range[1:], atol=1e-6), "the task's limits are the model's"


def test_robot_touches_only_the_floor(model):
    floor = model.geom("floor").id
    for a in range(model.ngeom):
        for b in range(a + 1, model.ngeom):
            touch = (model.geom_contype[a] & model.geom_conaffinity[b]) | (
                model.geom_contype[b] & model.geom_conaffinity[a]
            )
            assert not touch or floor in (a, b)


def test_collision_shapes_weigh_nothing_and_inertia_is_that_of_the_visible_body(model):
    assert (model.body_inertia[1:] > 0).all()
    principal = np.sort(model.body_inertia[1:], axis=1)
    assert (principal[:, 0] + principal[:, 1] >= principal[:, 2] * (1 - 1e-9)).all(), "triangle inequality"


def test_reset_is_seeded_upright_and_above_the_floor(task, model):
    envs = [make_env(task, 32, seed=seed, num_threads=1) for seed in (5, 5, 6)]
    first, same, other = [(e.sim.qpos.clone(), e.sim.qvel.clone()) for e in envs]
    assert torch.equal(first[0], same[0]) and torch.equal(first[1], same[1])
    assert not torch.equal(first[0], other[0])
    assert first[0].std(dim=0)[7:].min() > 0.01, "worlds differ from each other"
    for qpos, qvel in zip(*(t.double().numpy() for t in first), strict=True):
        data = data_at(model, qpos, qvel)
        assert data.body("torso").xmat[8] > 0.99 and data.body("torso").xmat[0] > 0.99
        assert all(contact.dist > -0.06 for contact in data.contact[: data.ncon])
    signals = task.signals(envs[0].sim)
    assert not torch.stack(list(task.terminate(signals).values())).any()
    assert envs[0].max_episode_steps == 500
    for env in envs:
        env.close()


def test_signals_agree_with_mujoco_kinematics(task, model):
    qpos, qvel = random_states(task, model, 8, height_m=2.0)
    env = make_env(task, 8, num_threads=1)
    env.sim.set_state(torch.arange(8), qpos, qvel)
    signals = task.signals(env.sim)
    task.signal_table.validate(signals, 8)
    torso = model.body("torso").id
    for world in range(8):
        data = data_at(model, qpos[world].numpy(), qvel[world].numpy())
        velocity_w, velocity_b = np.zeros(6), np.zeros(6)
        mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, torso, velocity_w, 0)
        mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, torso, velocity_b, 1)
        rotation = data.xmat[torso].reshape(3, 3)
        expected = {
            "torso_position_w": data.xpos[torso],
            "torso_orientation_w": data.xquat[torso],
            "up_axis_w": rotation[:, 2],
            "forward_axis_w": rotation[:, 0],
            "torso_linear_velocity_w": velocity_w[3:],
            "torso_linear_velocity_b": velocity_b[3:],
            "torso_angular_velocity_b": velocity_b[:3],
            "joint_pos": [data.joint(j).qpos[0] for j in range(1, model.njnt)],
            "joint_vel": [data.joint(j).qvel[0] for j in range(1, model.njnt)],
        }
        for name, value in expected.items():
            assert np.allclose(signals[name][world].numpy(), value, atol=2e-6), name
        low, high = model.jnt_range[1:].T
        fraction = signals["joint_pos_fraction"][world].double().numpy()
        assert np.allclose(low + (fraction + 1) / 2 * (high - low), expected["joint_pos"], atol=1e-5)
    # World up and forward as the policy sees them: rows of the rotation matrix.
    observation = task.observe(signals)
    assert np.allclose(observation[7, 7:10], rotation[2], atol=2e-6)
    assert np.allclose(observation[7, 10:13], rotation[0], atol=2e-6)
    env.close()


def test_action_signals_are_the_clipped_torque_fractions(task, model):
    env = make_env(task, 4, num_threads=1)
    first = torch.full((4, model.nu), 0.25)
    second = torch.full((4, model.nu), -3.0)
    env.step(first)
    signals = env.step(second).signals
    assert torch.equal(signals["actions"], torch.full_like(second, -1.0))
    assert torch.equal(signals["previous_actions"], first)
    data = data_at(model, model.qpos0, np.zeros(model.nv))
    data.ctrl[:] = 0.25
    mujoco.mj_forward(model, data)
    assert np.allclose(data.actuator_force * model.actuator_gear[:, 0], 0.25 * model.actuator_gear[:, 0])
    env.close()


def test_free_flight_is_ballistic_and_keeps_angular_momentum(task, model):
    qpos, qvel = random_states(task, model, 4, height_m=8.0)
    qvel[:, 6:] *= 0.3
    sim = NativeSimulation(model, 4, substeps=10, num_threads=1)
    sim.set_state(torch.arange(4), qpos, qvel)
    sim.set_ctrl(torch.zeros(4, model.nu))
    sim.step()
    duration_s = 10 * model.opt.timestep
    for world in range(4):
        before, after = (
            data_at(model, q[world].double().numpy(), v[world].double().numpy())
            for q, v in ((qpos, qvel), (sim.qpos, sim.qvel))
        )
        for data in (before, after):
            mujoco.mj_subtreeVel(model, data)
            assert data.ncon == 0
        drop = np.array([0.0, 0.0, -9.81 * duration_s])
        assert np.allclose(after.subtree_linvel[1], before.subtree_linvel[1] + drop, atol=0.02)
        fall = before.subtree_linvel[1] * duration_s + 0.5 * drop * duration_s
        assert np.allclose(after.subtree_com[1], before.subtree_com[1] + fall, atol=0.02)
        scale = np.linalg.norm(before.subtree_angmom[1])
        assert np.linalg.norm(after.subtree_angmom[1] - before.subtree_angmom[1]) < 0.1 * scale
    sim.close()


def test_limp_body_comes_to_rest_and_the_floor_carries_its_weight(task, model):
    env = make_env(task, 1, num_threads=1)
    state = mujoco.MjData(model)
    state.qpos[:], state.qvel[:] = env.sim.qpos[0].numpy(), env.sim.qvel[0].numpy()
    for _ in range(800):
        mujoco.mj_step(model, state)
    mujoco.mj_forward(model, state)
    force, wrench = 0.0, np.zeros(6)
    for contact in range(state.ncon):
        mujoco.mj_contactForce(model, state, contact, wrench)
        force += wrench[0]  # normal of the floor: world z
        assert state.contact[contact].dist > -0.03
    assert np.abs(state.qvel[:6]).max() < 0.1
    assert force == pytest.approx(9.81 * model.body_mass.sum(), rel=0.05)
    if task.name == "ant-run":
        assert state.qpos[2] > ant.MIN_HEIGHT_M, "an ant at rest on its legs has not fallen"
    else:
        assert state.qpos[2] < humanoid.MIN_HEIGHT_M, "a humanoid without torques falls"
    env.close()


def test_random_torques_never_diverge(task):
    env = make_env(task, 128, seed=1)
    rng = torch.Generator().manual_seed(2)
    for step in range(250):
        if step % 3 == 0:  # held and at the limits: harder than white noise
            actions = torch.sign(torch.randn(128, env.num_actions, generator=rng))
        result = env.step(actions)
        assert not result.reasons["diverged"].any()
        assert torch.isfinite(result.observation).all()
        assert result.signals["torso_linear_velocity_w"].abs().max() < MAX_SPEED_M_S[task.name]
    env.close()


def test_mirrored_controls_give_mirrored_motion(task, model):
    order, sign = ANT_MIRROR if task.name == "ant-run" else HUMANOID_MIRROR
    sign = torch.tensor(sign)
    env = make_env(task, 2, num_threads=1)
    qpos, qvel = torch.zeros(2, model.nq), torch.zeros(2, model.nv)
    qpos[:, 2], qpos[:, 3] = float(model.body("torso").pos[2]), 1.0
    qpos[:, 7:] = torch.tensor(model.jnt_range[1:].mean(axis=1) * 0.5, dtype=torch.float32)
    qpos[0, 7:] = 0.5 * (qpos[0, 7:] + (sign * qpos[0, 7:])[order])  # a pose that is its own mirror image
    qpos[1] = qpos[0]
    env.sim.set_state(torch.arange(2), qpos, qvel)
    rng = torch.Generator().manual_seed(4)
    for _ in range(15):
        action = 0.6 * torch.randn(model.nu, generator=rng)
        step = env.step(torch.stack([action, sign * action[order]]))
    velocity, joints = step.signals["torso_linear_velocity_w"], step.signals["joint_pos"]
    assert velocity[0].abs().max() > 0.05, "it moved"
    assert torch.allclose(velocity[1], velocity[0] * torch.tensor([1.0, -1.0, 1.0]), atol=1e-3)
    assert torch.allclose(joints[1], (sign * joints[0][order]), atol=1e-3)
    env.close()


def test_each_failure_fires_alone(task, model):
    env = make_env(task, 4, num_threads=1)
    qpos, qvel = env.sim.qpos.clone(), torch.zeros(4, model.nv)
    qpos[1, 2] = 0.25
    qpos[2, 2] = 3.0
    qpos[3, 3:7] = torch.tensor([0.0, 1.0, 0.0, 0.0])  # half a turn about x, at standing height
    env.sim.set_state(torch.arange(4), qpos, qvel)
    fired = {reason: hit.tolist() for reason, hit in task.terminate(task.signals(env.sim)).items()}
    assert fired["torso_too_low"] == [False, True, False, False]
    assert fired["torso_too_high"] == [False, False, True, False]
    if task.name == "ant-run":
        assert fired["overturned"] == [False, False, False, True]
    env.close()


def test_fitness_is_the_distance_run_over_the_time_limit(task):
    """Mean speed x time limit = displacement of the torso, up to the quadrature error of the control step."""
    env = make_env(task, 16, seed=8)
    tracker = EpisodeFitness(16, env.max_episode_steps, task.fitness_reduce, task.fitness_failed)
    start = env.sim.qpos[:, 0].clone()
    rng = torch.Generator().manual_seed(3)
    running = torch.ones(16, dtype=torch.bool)
    for _ in range(25):  # half a second: nothing has fallen yet
        result = env.step(0.5 * torch.randn(16, env.num_actions, generator=rng))
        value = tracker.add(task.fitness(result.signals), result.done, result.reasons["diverged"])
        running &= ~result.done
    travelled = env.sim.qpos[:, 0] - start
    assert running.sum() >= 8 and travelled[running].abs().max() > 0.05
    assert torch.allclose(value[running] * task.episode_length_s, travelled[running], atol=0.03)
    env.close()


def test_sparse_reward_is_the_fitness(task, samples):
    total, _ = build_reward(load(task.name, "sparse").text, task.signal_table)(samples)
    assert total.abs().max() > 0.1
    assert torch.equal(total, task.fitness(samples))


@pytest.mark.parametrize("kind", ["human", "sparse"])
def test_library_rewards_pass_the_gate(task, samples, kind):
    batches = [samples, {name: tensor[:16] for name, tensor in samples.items()}]
    verdict = admit(load(task.name, kind).text, task.signal_table, batches)
    assert verdict.accepted, verdict.explain()


def test_human_reward_of_one_state_by_hand(task):
    signals = {s.name: torch.zeros(1, s.dims) for s in task.signal_table}
    signals["torso_linear_velocity_w"][0, 0] = 3.0
    signals["up_axis_w"][0, 2] = 1.0
    signals["forward_axis_w"][0, 0] = 0.4
    signals["actions"][0, 3] = -1.0
    signals["joint_vel"][0, 3] = 10.0
    signals["joint_pos_fraction"][0, 3] = 1.0
    total, parts = build_reward(load(task.name, "human").text, task.signal_table)(signals)
    if task.name == "ant-run":  # joint 3: energy 0.05 x 0.2 x 10, limit 0.1
        expected = 3.0 + 0.25 + 0.1 + 0.5 - 0.005 - 0.1 - 0.1
    else:  # joint 3 is a hip of a third of the strongest motor: energy 0.05 x 0.1 x 10 / 3, limit 0.25 / 3
        expected = 3.0 + 0.25 + 0.1 + 2.0 - 0.01 - 0.05 / 3 - 0.25 / 3
    assert float(total[0]) == pytest.approx(expected, abs=1e-3)
    assert float(total[0]) == pytest.approx(sum(float(p[0]) for p in parts.values()), abs=1e-5)
