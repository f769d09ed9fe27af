"""The steps from a robot as shipped to a training model, each on a small model of our own."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from tasks.errors import UserError
from tasks.robots import edit

TETRAHEDRON = "0 0 0  0.3 0 0  0 0.3 0  0 0 0.3"
ROBOT = f"""
<mujoco model="toy">
  <compiler angle="radian"/>
  <default><default class="shown"><geom contype="0" conaffinity="0" group="2"/></default></default>
  <asset>
    <texture name="skin" type="2d" builtin="flat" width="4" height="4"/>
    <material name="red" texture="skin"/>
    <mesh name="shell" vertex="{TETRAHEDRON}"/>
    <mesh name="hull" vertex="{TETRAHEDRON}"/>
  </asset>
  <worldbody>
    <body name="base" pos="0 0 1" quat="0 0 0 1">
      <freejoint/>
      <geom class="shown" type="mesh" mesh="shell" material="red" density="500"/>
      <geom name="chest" type="mesh" mesh="hull" mass="2"/>
      <body name="leg" pos="0.1 0 0">
        <inertial mass="1" pos="0 0 -0.1" diaginertia="0.01 0.01 0.001"/>
        <joint name="hip" axis="0 1 0" range="-1 1" frictionloss="0.1"/>
        <joint name="knee" axis="1 0 0" range="-2 2"/>
        <geom class="shown" size="0.05"/>
        <geom class="shown" name="marker" size="0.01"/>
        <geom name="foot" size="0.03" pos="0 0 -0.3"/>
      </body>
    </body>
  </worldbody>
  <actuator><motor name="hip" joint="hip"/></actuator>
  <sensor><accelerometer name="acceleration" site="imu"/></sensor>
  <keyframe><key name="home" qpos="0 0 1 1 0 0 0 0 0"/></keyframe>
</mujoco>
""".replace('<joint name="hip"', '<site name="imu"/><joint name="hip"')


@pytest.fixture
def spec():
    return mujoco.MjSpec.from_string(ROBOT)


def test_what_only_shows_is_dropped_and_every_mass_stays(spec):
    shipped = mujoco.MjModel.from_xml_string(ROBOT)
    assert shipped.body("base").mass[0] > 2.1, "the shell weighs something"
    edit.drop_visuals(spec, keep=["marker"])
    model = spec.compile()
    assert [model.geom(i).name for i in range(model.ngeom)] == ["chest", "marker", "foot"]
    assert (model.nmesh, model.nmat, model.ntex) == (1, 0, 0)
    for field in ("body_mass", "body_inertia", "body_ipos", "body_iquat"):
        assert np.allclose(getattr(model, field), getattr(shipped, field), rtol=1e-12, atol=1e-15), field


def test_geoms_of_a_pair_or_of_a_sensor_are_not_dropped(spec):
    spec.add_pair(geomname1="marker", geomname2="foot")
    edit.drop_sensors(spec)
    edit.add_sensors(spec, mujoco.mjtSensor.mjSENS_FRAMEPOS, mujoco.mjtObj.mjOBJ_GEOM, {"chest_position": "chest"})
    edit.keep_collisions(spec, [])
    edit.drop_visuals(spec)
    model = spec.compile()
    assert [model.geom(i).name for i in range(model.ngeom)] == ["chest", "marker", "foot"]


def test_only_named_geoms_collide_and_only_with_the_floor(spec):
    edit.keep_collisions(spec, ["foot"], contype=0, conaffinity=1)
    edit.add_floor(spec)
    model = spec.compile()
    touching = [
        {model.geom(a).name, model.geom(b).name}
        for a in range(model.ngeom)
        for b in range(a)
        if model.geom_contype[a] & model.geom_conaffinity[b] or model.geom_contype[b] & model.geom_conaffinity[a]
    ]
    assert touching == [{"foot", edit.FLOOR}]
    data = mujoco.MjData(model)
    for _ in range(2000):
        mujoco.mj_step(model, data)
    assert data.ncon == 1 and data.geom("foot").xpos[2] == pytest.approx(0.03, abs=0.01)


def test_masks_are_kept_where_none_are_given(spec):
    spec.geom("foot").contype = 6
    edit.keep_collisions(spec, ["foot"])
    model = spec.compile()
    assert (model.geom("foot").contype[0], model.geom("foot").conaffinity[0]) == (6, 1)
    assert model.geom("chest").contype[0] == 0


def test_a_missing_joint_geom_or_body_is_one_line(spec):
    assert [joint.name for joint in edit.require_joints(spec, ["knee", "hip"])] == ["knee", "hip"]
    for require, names, line in (
        (
            edit.require_joints,
            ["hip", "kne", "toe"],
            "the model 'toy' has no joint 'kne' (and 1 more). Did you mean 'knee'?",
        ),
        (edit.require_geoms, ["foo"], "the model 'toy' has no geom 'foo'. Did you mean 'foot'?"),
        (edit.require_bodies, ["legs"], "the model 'toy' has no body 'legs'. Did you mean 'leg'?"),
    ):
        with pytest.raises(UserError) as caught:
            require(spec, names)
        assert str(caught.value) == line


def test_naming_geoms_counts_them(spec):
    shown = edit.geoms_of_class(spec, "shown")
    edit.name_geoms(shown, ["a", "b", "c"])
    assert [geom.name for geom in edit.require_geoms(spec, ["c", "a"])] == ["c", "a"]
    with pytest.raises(UserError, match="found 3 geoms where 2 were expected"):
        edit.name_geoms(shown, ["a", "b"])


def test_servos_push_as_stiffness_and_damping_say(spec):
    edit.set_servos(spec, {"hip": edit.Servo(20.0, 0.5, force_limit=6.0, armature=0.02)})
    model = spec.compile()
    data = mujoco.MjData(model)
    data.qpos[7], data.qvel[6], data.ctrl[0] = 0.2, 0.4, 0.3
    mujoco.mj_forward(model, data)
    assert data.actuator_force[0] == pytest.approx(20.0 * 0.1 - 0.5 * 0.4)
    data.ctrl[0] = 0.9
    mujoco.mj_forward(model, data)
    assert data.actuator_force[0] == pytest.approx(6.0)
    assert model.dof_armature[6] == 0.02 and np.array_equal(model.actuator_ctrlrange[0], [-1.0, 1.0])
    with pytest.raises(UserError, match="no actuator on joint 'knee'"):
        edit.set_servos(spec, {"knee": edit.Servo(1.0, 1.0)})


def test_physics_sets_what_it_names_and_nothing_else(spec):
    before = spec.copy().compile().opt
    newton = mujoco.mjtSolver.mjSOL_NEWTON
    edit.set_physics(spec, edit.Physics(timestep_s=0.004, solver=newton, iterations=7, tolerance=1e-5))
    opt = spec.compile().opt
    assert (opt.timestep, opt.solver, opt.iterations, opt.tolerance) == (0.004, newton, 7, 1e-5)
    assert (opt.ls_iterations, opt.integrator, opt.cone) == (before.ls_iterations, before.integrator, before.cone)


def test_keyframes_and_sensors_go_and_come(spec):
    edit.drop_keyframes(spec)
    edit.drop_sensors(spec)
    edit.add_keyframe(spec, "start", [0, 0, 2, 1, 0, 0, 0, 0.5, 0], [0.25])
    model = spec.compile()
    assert (model.nkey, model.nsensor) == (1, 0)
    assert model.key_qpos[0, 7] == 0.5 and model.key_ctrl[0, 0] == 0.25


def test_the_camera_looks_at_the_body_from_its_offset_in_the_world(spec):
    """The base of the toy stands turned by half a turn."""
    edit.add_tracking_camera(spec, "track", "base", (1.0, -2.0, 0.5))
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    place, axes = data.camera("track").xpos, data.camera("track").xmat.reshape(3, 3)
    assert np.allclose(place - data.body("base").xpos, [1.0, -2.0, 0.5], atol=1e-6)
    assert np.allclose(axes[:, 2], np.array([1.0, -2.0, 0.5]) / np.linalg.norm([1.0, -2.0, 0.5]), atol=1e-6)
    assert axes[2, 1] > 0.9, "upright picture"


def test_a_spec_that_does_not_compile_is_one_line(spec):
    spec.add_sensor(
        name="s", type=mujoco.mjtSensor.mjSENS_FRAMEPOS, objtype=mujoco.mjtObj.mjOBJ_GEOM, objname="nothing"
    )
    with pytest.raises(UserError, match="MuJoCo cannot compile the toy") as caught:
        edit.compile_spec(spec, "the toy")
    assert "\n" not in str(caught.value)
