"""The tasks of arms and hands, and x2-hover: goals, success and failure by states set by hand, signals against MuJoCo."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest
import torch

from tasks import registry
from tasks.dexterous.in_hand import InHandTask, random_rotation
from tasks.env import TaskEnv, make_env
from tasks.math import quat_from_axis_angle, quat_multiply, quat_to_rotation_vector

IN_HAND = ("allegro-reorient", "shadow-reorient", "shadow-pen-spin")
ALL = (*IN_HAND, "franka-cabinet", "x2-hover")


def still(env: TaskEnv) -> torch.Tensor:
    return torch.zeros(env.num_envs, env.num_actions)


def turned(quat: torch.Tensor, axis: list[float], angle: float) -> torch.Tensor:
    """quat (n, 4) turned further about a world axis."""
    n = len(quat)
    return quat_multiply(quat_from_axis_angle(torch.tensor(axis).expand(n, 3), torch.full((n,), angle)), quat)


@pytest.mark.parametrize("name", ALL)
def test_a_thousand_random_steps_neither_diverge_nor_differ_by_run(name):
    """Bit for bit the same per seed, over resets and new goals; every signal as the table has it, and finite."""
    task = registry.make(name)
    first, second = (make_env(task, 2, seed=5, num_threads=1) for _ in range(2))
    rng = torch.Generator().manual_seed(0)
    for number in range(1000):
        actions = torch.rand(2, first.num_actions, generator=rng) * 2 - 1
        step = first.step(actions)
        assert not step.reasons["diverged"].any()
        if number < 40:
            again = second.step(actions)
            assert torch.equal(step.observation, again.observation)
            task.signal_table.validate(step.signals, 2)
    assert all(torch.isfinite(tensor).all() for tensor in step.signals.values())
    assert first.num_observations == step.observation.shape[1]


@pytest.mark.parametrize("name", IN_HAND)
def test_the_rest_pose_holds_the_object(name):
    """Action 0 for 2 s: at least two in three are still held."""
    env = make_env(registry.make(name), 12, seed=1, num_threads=1)
    dropped = torch.zeros(12, dtype=torch.bool)
    for _ in range(40):
        dropped |= env.step(still(env)).terminated
    assert int(dropped.sum()) <= 4


@pytest.mark.parametrize("name", IN_HAND)
def test_a_goal_that_is_reached_counts_once_and_is_followed_by_another(name):
    """The goal is put 0.5 tolerance, then 1.5 tolerances away from the object, about an axis that counts for a pen, too."""
    task = registry.make(name)
    assert isinstance(task, InHandTask)
    env = make_env(task, 4, seed=2, num_threads=1)
    joints = task.grasp.joints
    for share, reached in ((0.5, True), (1.5, False)):
        env.reset()
        orientation = env.sim.qpos[:, joints + 3 :]
        goal = turned(orientation, [0.0, 0.0, 1.0], share * task.goal_tolerance_rad)
        env.sim.memory["goal_orientation_w"] = goal
        signals = task.signals(env.sim)
        if name == "shadow-pen-spin":  # it lies, so that a turn about the vertical is one of its axis
            assert signals["rotation_distance"].allclose(torch.tensor(share * task.goal_tolerance_rad), atol=1e-4)
        assert (signals["rotation_distance"][:, 0] < task.goal_tolerance_rad).all() == reached
        assert (task.fitness(signals) == float(reached)).all()
        changed = task.update(env.sim, signals, torch.Generator().manual_seed(0))
        assert (changed == reached).all()
        assert (env.sim.memory["goal_orientation_w"] != goal).any(dim=-1).all() == reached
        if reached:
            assert (task.fitness(task.signals(env.sim)) == 0.0).sum() >= 3  # a random goal may be near


@pytest.mark.parametrize("name", IN_HAND)
def test_a_fallen_object_ends_the_episode_and_the_next_one_starts_in_the_hand(name):
    task = registry.make(name)
    env = make_env(task, 2, seed=3, num_threads=1)
    joints = task.grasp.joints
    qpos = env.sim.qpos.clone()
    qpos[1, joints + 2] = 0.3
    env.sim.set_state(torch.arange(2), qpos, torch.zeros(2, env.sim.model.nv))
    step = env.step(still(env))
    assert step.reasons["dropped"].tolist() == [False, True] and step.terminated.tolist() == [False, True]
    assert env.sim.qpos[1, joints + 2] > 0.5
    assert (env.sim.memory["servo_target"][1] == torch.tensor(task.grasp.rest_rad)).all()


@pytest.mark.parametrize("name", ["allegro-reorient", "shadow-reorient"])
def test_hand_signals_agree_with_mujoco(name):
    """Fingertips, the rotation left and the object's velocities in states of a random rollout."""
    task = registry.make(name)
    env = make_env(task, 3, seed=4, num_threads=1)
    rng = torch.Generator().manual_seed(1)
    for _ in range(8):
        signals = env.step(torch.rand(3, env.num_actions, generator=rng) * 2 - 1).signals
        qpos, qvel, goals = env.sim.qpos, env.sim.qvel, env.sim.memory["goal_orientation_w"]
    model, data = env.sim.model, mujoco.MjData(env.sim.model)
    velocity, left = np.zeros(6), np.zeros(3)
    signals = task.signals(env.sim)
    for world in range(3):
        data.qpos[:], data.qvel[:] = qpos[world].numpy(), qvel[world].numpy()
        mujoco.mj_forward(model, data)
        tips = np.concatenate([data.site(tip).xpos for tip in task.grasp.tips])
        body = model.body("object").id
        mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, body, velocity, 0)
        # mju_subQuat's difference is in the frame of its second argument.
        mujoco.mju_subQuat(left, goals[world].numpy().astype(float), data.xquat[body])
        expected = {
            "fingertip_position_w": tips,
            "fingertip_offset_w": tips - np.tile(data.xpos[body], len(task.grasp.tips)),
            "object_angular_velocity_w": velocity[:3],
            "object_linear_velocity_w": velocity[3:],
            "rotation_to_goal_w": data.xmat[body].reshape(3, 3) @ left,
            "rotation_distance": [np.linalg.norm(left)],
        }
        for key, value in expected.items():
            np.testing.assert_allclose(signals[key][world], value, atol=2e-3, err_msg=key)
        servos = [np.asarray(data.actuator_length)]
        np.testing.assert_allclose(
            signals["servo_target_offset"][world],
            env.sim.memory["servo_target"][world].numpy() - servos[0],
            atol=1e-4,
        )


def test_targets_are_smoothed_and_kept_within_the_servos_ranges():
    """By hand: half the way to rest + 0.8 rad in the first step, three quarters after two; cut off at the range's end."""
    env = make_env(registry.make("allegro-reorient"), 1, num_threads=1)
    rest = torch.tensor(env.task.grasp.rest_rad)
    low, high = (torch.tensor(column, dtype=torch.float32) for column in env.sim.model.actuator_ctrlrange.T)
    goal = torch.minimum(rest + 0.8, high)
    for share in (0.5, 0.75):
        env.step(torch.ones(1, 16))
        torch.testing.assert_close(env.sim.memory["servo_target"][0], rest + share * (goal - rest))
    assert ((rest >= low) & (rest <= high)).all()


def test_random_rotations_are_isaac_gyms():
    """About x, then y, each uniform: the turned z axis is (sin y, -sin x cos y, cos x cos y), whose mean square is
    (1/2, 1/4, 1/4)."""
    quats = random_rotation(4000, torch.Generator().manual_seed(0))
    w, x, y, z = quats.unbind(-1)
    axis = torch.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], dim=-1)
    torch.testing.assert_close(axis.square().mean(dim=0), torch.tensor([0.5, 0.25, 0.25]), atol=0.02, rtol=0.0)
    torch.testing.assert_close(quats.norm(dim=-1), torch.ones(4000))


def test_the_pens_goals_go_round_in_eight_steps_and_its_roll_does_not_count():
    task = registry.make("shadow-pen-spin")
    assert isinstance(task, InHandTask)
    rng = torch.Generator().manual_seed(0)
    start = task.start_orientation(5, rng)
    goals = [start]
    for _ in range(8):
        goals.append(task.next_goal(goals[-1], rng))
        step = task.rotation_left(goals[-2], goals[-1])
        torch.testing.assert_close(step, torch.tensor([0.0, 0.0, math.pi / 4]).expand(5, 3), atol=1e-4, rtol=0.0)
    torch.testing.assert_close(quat_to_rotation_vector(quat_multiply(start, goals[-1] * torch.tensor([1.0, -1, -1, -1]))),
                               torch.zeros(5, 3), atol=1e-4, rtol=0.0)  # fmt: skip
    roll = quat_from_axis_angle(torch.tensor([0.0, 0.0, 1.0]).expand(5, 3), torch.full((5,), 2.0))
    assert task.rotation_left(quat_multiply(start, roll), start).abs().max() < 1e-3


def test_rotation_vectors_are_mujocos():
    rng = np.random.default_rng(0)
    quats = rng.normal(size=(200, 4))
    quats /= np.linalg.norm(quats, axis=1, keepdims=True)
    quats[:2] = [[1.0, 0.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0]]
    expected = np.zeros((200, 3))
    for quat, vector in zip(quats, expected, strict=True):
        mujoco.mju_quat2Vel(vector, quat, 1.0)
    result = quat_to_rotation_vector(torch.tensor(quats, dtype=torch.float32))
    np.testing.assert_allclose(result[2:], expected[2:], atol=2e-3)
    assert result[:2].abs().max() == 0.0


# -- franka-cabinet


def test_the_drawer_counts_past_0_39_m_and_stops_at_0_40():
    env = make_env(registry.make("franka-cabinet"), 3, num_threads=1)
    qpos = env.sim.qpos.clone()
    qpos[:, 0] = 1.2  # the arm turned aside: the drawer comes out where it starts
    qpos[:, 9] = torch.tensor([0.385, 0.395, 0.0])
    qvel = torch.zeros(3, env.sim.model.nv)
    env.sim.set_state(torch.arange(3), qpos, qvel)
    assert env.task.fitness(env.task.signals(env.sim)).tolist() == [0.0, 1.0, 0.0]
    assert env.task.fitness_reduce == "max"
    qvel[:, 9] = 0.5
    env.sim.set_state(torch.arange(3), qpos, qvel)
    passed = []
    for _ in range(10):
        signals = env.step(still(env)).signals
        passed.append(signals["drawer_pos"][:2, 0])
        handle_x = signals["handle_position_w"][:2, 0]
        torch.testing.assert_close(handle_x, 0.72 - signals["drawer_pos"][:2, 0], atol=1e-5, rtol=0.0)
    farthest = torch.stack(passed).amax(dim=0)
    assert (farthest > 0.39).all() and (farthest < 0.415).all()


def test_cabinet_signals_agree_with_mujoco():
    env = make_env(registry.make("franka-cabinet"), 2, seed=1, num_threads=1)
    rng = torch.Generator().manual_seed(1)
    for _ in range(20):
        env.step(torch.rand(2, 8, generator=rng) * 2 - 1)
    signals, model = env.task.signals(env.sim), env.sim.model
    data = mujoco.MjData(model)
    for world in range(2):
        data.qpos[:], data.qvel[:] = env.sim.qpos[world].numpy(), env.sim.qvel[world].numpy()
        mujoco.mj_forward(model, data)
        hand = data.body("hand")
        rotation = hand.xmat.reshape(3, 3)
        grip = hand.xpos + 0.1034 * rotation[:, 2]
        expected = {
            "grip_position_w": grip,
            "grip_forward_axis_w": rotation[:, 2],
            "grip_up_axis_w": rotation[:, 1],
            "handle_offset_w": np.array([0.72 - data.qpos[9], 0.0, 0.55]) - grip,
        }
        for key, value in expected.items():
            np.testing.assert_allclose(signals[key][world], value, atol=1e-5, err_msg=key)
        left, right = signals["left_fingertip_position_w"][world], signals["right_fingertip_position_w"][world]
        np.testing.assert_allclose((left + right) / 2, grip, atol=0.002)


def test_targets_of_the_arm_move_by_the_actions_and_stay_near_the_joints():
    """By hand: 0.04 s at 2.175 rad/s a step; never more than 0.2 rad from the joint as it was when they were set."""
    env = make_env(registry.make("franka-cabinet"), 1, seed=0, num_threads=1)
    before = env.sim.memory["joint_target"].clone()
    env.step(torch.full((1, 8), 0.5))
    torch.testing.assert_close(env.sim.memory["joint_target"], before + 0.5 * 2.175 * 0.04)
    for _ in range(30):
        joint_pos = env.sim.qpos[:, :7].clone()
        env.step(torch.ones(1, 8))
        assert ((env.sim.memory["joint_target"] - joint_pos) < 0.2001).all()
    assert (env.sim.memory["joint_target"] <= torch.tensor(env.sim.model.jnt_range[:7, 1]) + 1e-5).all()


# -- pictures


@pytest.mark.parametrize("name", ["allegro-reorient", "shadow-pen-spin", "x2-hover"])
def test_videos_show_the_robot_as_shipped_and_the_goal(name):
    """The visual model has the same joints first; then a free body at the goal's orientation that touches nothing."""
    task = registry.make(name)
    env = make_env(task, 1, seed=0, num_threads=1)
    visual, model = task.build_visual_model(), env.sim.model
    qpos = task.visual_qpos(env.sim.qpos, env.sim.memory)
    assert qpos.shape == (1, visual.nq) and visual.nmesh > 0 and visual.ngeom > model.ngeom
    assert [visual.joint(i).name for i in range(model.njnt)] == [model.joint(i).name for i in range(model.njnt)]
    if name != "x2-hover":
        data = mujoco.MjData(visual)
        data.qpos[:] = qpos[0].numpy()
        mujoco.mj_kinematics(visual, data)
        goal = env.sim.memory["goal_orientation_w"][0].numpy()
        assert abs(float(data.body("goal").xquat @ goal)) == pytest.approx(1.0, abs=1e-5)
        geom = visual.geom("goal")
        assert not geom.contype[0] and not geom.conaffinity[0]
