"""Training models against the robots as shipped: the same bodies, and the same motion within stated bounds."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest
from mujoco.batch import Batch

from tasks.errors import UserError
from tasks.robots import anymal_c, edit, g1
from tasks.robots.menagerie import missing_reason, robot_folder

CONTROL_DT_S = 0.02
ROBOTS = {robot.ROBOT: robot for robot in (anymal_c, g1)}


@pytest.fixture(scope="module", params=sorted(ROBOTS))
def robot(request):
    reason = missing_reason(request.param)
    if reason:
        pytest.skip(reason)
    return ROBOTS[request.param]


@pytest.fixture(scope="module")
def shipped(robot):
    return robot.shipped_model()


@pytest.fixture(scope="module")
def model(robot):
    return robot.training_model()


def names(model: mujoco.MjModel, kind: str, count: int) -> list[str]:
    return [getattr(model, kind)(i).name for i in range(count)]


def test_bodies_joints_and_actuators_are_those_of_the_robot(robot, shipped, model):
    assert (model.nq, model.nv, model.nu, model.nbody) == (shipped.nq, shipped.nv, shipped.nu, shipped.nbody)
    assert names(model, "joint", model.njnt)[1:] == names(shipped, "joint", model.njnt)[1:] == list(robot.JOINTS)
    assert names(model, "actuator", model.nu) == names(shipped, "actuator", model.nu) == list(robot.JOINTS)
    for field in ("body_mass", "body_inertia", "body_pos", "body_quat", "body_ipos", "body_iquat", "jnt_axis",
                  "jnt_range", "dof_damping", "dof_armature", "actuator_gainprm", "actuator_biasprm"):  # fmt: skip
        assert np.array_equal(getattr(model, field), getattr(shipped, field)), field
    assert model.nmesh == 0 and shipped.nmesh > 20


def test_only_feet_touch_and_only_the_floor(robot, model):
    feet = anymal_c.FEET if robot is anymal_c else g1.FOOT_SPHERES
    assert sorted(names(model, "geom", model.ngeom)) == sorted([*feet, edit.FLOOR])
    data = mujoco.MjData(model)
    data.qpos[2], data.qpos[3], data.qpos[7:] = 0.0, 1.0, robot.STAND_POSE_RAD  # half sunk into the floor
    mujoco.mj_forward(model, data)
    pairs = {tuple(sorted(model.geom(g).name for g in contact.geom)) for contact in data.contact}
    assert pairs == {tuple(sorted((foot, edit.FLOOR))) for foot in feet}


def swing(robot, time_s: float) -> np.ndarray:
    """Joint targets of a robot that lifts its feet in turn: ANYmal's diagonals 1.5 times a second, the G1's legs once."""
    targets = np.array(robot.STAND_POSE_RAD)
    frequency = 1.5 if robot is anymal_c else 1.0
    for number, half_turn in enumerate((0, 1, 1, 0) if robot is anymal_c else (0, 1)):
        lift = max(0.0, math.sin(2 * math.pi * frequency * time_s + math.pi * half_turn))
        if robot is anymal_c:
            bend = 0.3 if number < 2 else -0.3
            targets[3 * number + 1 : 3 * number + 3] += np.array([1.0, -2.0]) * bend * lift
        else:
            targets[6 * number + np.array([0, 3, 4])] += np.array([-1.0, 2.0, -1.0]) * 0.15 * lift
    return targets


def motion(robot, model: mujoco.MjModel, seconds: float, *, still: bool = False) -> np.ndarray:
    """qpos after each control step (steps, nq)."""
    data, states = mujoco.MjData(model), []
    data.qpos[:7] = [0, 0, 0.52 if robot is anymal_c else robot.STAND_HEIGHT_M, 1, 0, 0, 0]
    data.qpos[7:] = robot.STAND_POSE_RAD
    for step in range(round(seconds / CONTROL_DT_S)):
        data.ctrl[:] = robot.STAND_POSE_RAD if still else swing(robot, step * CONTROL_DT_S)
        for _ in range(round(CONTROL_DT_S / model.opt.timestep)):
            mujoco.mj_step(model, data)
        states.append(data.qpos.copy())
    return np.array(states)


def test_the_training_model_moves_as_the_robot_does(robot, shipped, model):
    """Same targets, same start. ANYmal trots on the spot for 2 s; the G1 steps for 0.5 s, since nobody balances it and
    small differences grow: after 1.2 s it has fallen in both."""
    seconds, position_m, angle_rad, joint_rad = (2.0, 0.02, 0.1, 0.1) if robot is anymal_c else (0.5, 0.03, 0.035, 0.1)
    expected, came = motion(robot, shipped, seconds), motion(robot, model, seconds)
    assert np.ptp(expected[:, 2]) > 0.02 and np.ptp(expected[:, 7:], axis=0).max() > 0.3, "it moves"
    assert np.linalg.norm(came[:, :3] - expected[:, :3], axis=1).max() < position_m
    alignment = np.abs(np.sum(came[:, 3:7] * expected[:, 3:7], axis=1)).clip(max=1.0)
    assert 2.0 * np.arccos(alignment).max() < angle_rad
    assert np.abs(came[:, 7:] - expected[:, 7:]).max() < joint_rad


def test_the_feet_of_the_anymal_hold_when_it_stands(robot, shipped, model):
    """Friction that is too soft lets the legs slide apart: with impratio 5 the base sinks by 6 cm in these 4 s."""
    if robot is not anymal_c:
        pytest.skip("nobody balances the G1")
    expected, came = motion(robot, shipped, 4.0, still=True), motion(robot, model, 4.0, still=True)
    assert np.abs(came[50:, 2] - expected[50:, 2]).max() < 0.01


def test_a_kicking_anymal_stays_on_the_ground(robot, model):
    """With contacts of impedance 1, as shipped, 31 of 1024 are thrown into the air at up to 3e6 m/s."""
    if robot is not anymal_c:
        pytest.skip("nobody balances the G1")
    batch = Batch(model, 256, 1)
    qpos, qvel, ctrl = (batch.bind(name) for name in ("qpos", "qvel", "ctrl"))
    batch.reset(stage=0)
    qpos[:] = 0.0
    qpos[:, 2], qpos[:, 3], qpos[:, 7:] = robot.STAND_HEIGHT_M, 1.0, robot.STAND_POSE_RAD
    rng, fastest = np.random.default_rng(0), 0.0
    for _ in range(60):
        kicks = 0.5 * rng.standard_normal((256, 12)).clip(-2.0, 2.0)
        ctrl[:] = np.array(robot.STAND_POSE_RAD) + kicks
        batch.step(nstep=round(CONTROL_DT_S / model.opt.timestep))
        fastest = max(fastest, float(np.abs(qvel[:, :3]).max()))
    assert fastest < 6.0


def test_the_visual_model_shows_the_states_of_the_training_model(robot, model):
    visual = robot.visual_model()
    assert visual.nmesh > 20 and visual.camera(robot.CAMERA) is not None
    rng = np.random.default_rng(0)
    qpos = np.concatenate([rng.normal(size=7), rng.uniform(*model.jnt_range[1:].clip(-1, 1).T)])
    datas = [mujoco.MjData(visual), mujoco.MjData(model)]
    for data, which in zip(datas, (visual, model), strict=True):
        data.qpos[:] = qpos
        mujoco.mj_forward(which, data)
    assert np.allclose(datas[0].xpos, datas[1].xpos, atol=1e-12)
    assert np.allclose(datas[0].xquat, datas[1].xquat, atol=1e-12)


def test_the_servos_of_the_g1_are_mjlabs():
    """Stiffness and damping as mjlab prints them for each motor; by hand from its armatures, 10 Hz and ratio 2."""
    expected = {
        "left_elbow_joint": (14.251, 0.9072, 25.0),
        "waist_yaw_joint": (40.179, 2.5579, 88.0),
        "right_knee_joint": (99.098, 6.3088, 139.0),
        "left_wrist_yaw_joint": (16.778, 1.0681, 5.0),
        "right_ankle_roll_joint": (28.501, 1.8144, 50.0),
    }
    for joint, (stiffness, damping, limit) in expected.items():
        servo = g1.servo(joint)
        assert (servo.stiffness, servo.damping) == pytest.approx((stiffness, damping), rel=1e-4)
        assert servo.force_limit == limit


def test_a_joint_that_the_robots_file_lacks_is_one_line(robot, tmp_path, monkeypatch):
    file = "anymal_c.xml" if robot is anymal_c else "g1.xml"
    joint = robot.JOINTS[4]
    text = (robot_folder(robot.ROBOT) / file).read_text().replace(f'"{joint}"', f'"{joint}_2"')
    (tmp_path / robot.ROBOT).mkdir()
    (tmp_path / robot.ROBOT / file).write_text(text)
    monkeypatch.setenv("MENAGERIE_ROOT", str(tmp_path))
    with pytest.raises(UserError, match=rf"has no joint '{joint}'\. Did you mean") as caught:
        robot.training_model()
    assert "\n" not in str(caught.value)
