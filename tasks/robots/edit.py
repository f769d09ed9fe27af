"""Steps from a robot as shipped to a training model, each on an `MjSpec`, none of them special to one robot.

What is faster without changing the physics: geoms that only show, and meshes. What does change it, so that each robot's
own file has to say why and measure it: which geoms collide, solver and timestep, servos.

Does not fetch robots (`tasks.robots.menagerie`) and knows none by name. SI units; the order of the steps matters only
where a docstring says so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from tasks.errors import UserError, did_you_mean

FLOOR = "floor"
"""Name of the geom that `add_floor` makes."""


@dataclass(frozen=True)
class Physics:
    """The options of a training model; None leaves what the robot's file says."""

    timestep_s: float | None = None
    """Physics step."""
    integrator: mujoco.mjtIntegrator | None = None
    """implicitfast takes large steps with stiff servos."""
    solver: mujoco.mjtSolver | None = None
    """Newton converges in few iterations; CG and PGS have cheaper ones."""
    iterations: int | None = None
    """Most iterations of the constraint solver a step."""
    ls_iterations: int | None = None
    """Most line search iterations in each of these."""
    cone: mujoco.mjtCone | None = None
    """Friction cone; the pyramidal one is cheaper."""
    impratio: float | None = None
    """How much stiffer friction is than the normal force; large ones hold against slip and cost iterations."""
    tolerance: float | None = None
    """Improvement, scaled by the model's size, below which the solver stops."""
    jacobian: mujoco.mjtJacobian | None = None
    """Sparse is faster from about 30 degrees of freedom on."""


@dataclass(frozen=True)
class Servo:
    """A joint's position servo: force = stiffness (target - position) - damping velocity, within +-force_limit."""

    stiffness: float
    """N m/rad, or N/m for a slide."""
    damping: float
    """N m s/rad, or N s/m."""
    force_limit: float | None = None
    """N m or N; None keeps the limits of the robot's file."""
    armature: float | None = None
    """Inertia of the rotor seen at the joint, kg m2; None keeps that of the robot's file."""


def set_physics(spec: mujoco.MjSpec, physics: Physics) -> None:
    """Set the options that `physics` names."""
    named = {"timestep": physics.timestep_s}
    same = ("integrator", "solver", "iterations", "ls_iterations", "cone", "impratio", "tolerance", "jacobian")
    named |= {name: getattr(physics, name) for name in same}
    for name, value in named.items():
        if value is not None:
            setattr(spec.option, name, value)


def require_joints(spec: mujoco.MjSpec, names: Iterable[str]) -> list[mujoco.MjsJoint]:
    """The joints of these names, in this order. Raises UserError naming those that the model lacks."""
    return _require({joint.name: joint for joint in spec.joints}, names, "joint", spec)


def require_geoms(spec: mujoco.MjSpec, names: Iterable[str]) -> list[mujoco.MjsGeom]:
    """The geoms of these names, in this order. Raises UserError naming those that the model lacks."""
    return _require({geom.name: geom for geom in spec.geoms}, names, "geom", spec)


def require_bodies(spec: mujoco.MjSpec, names: Iterable[str]) -> list[mujoco.MjsBody]:
    """The bodies of these names, in this order. Raises UserError naming those that the model lacks."""
    return _require({body.name: body for body in spec.bodies}, names, "body", spec)


def name_geoms(geoms: Sequence[mujoco.MjsGeom], names: Sequence[str]) -> None:
    """Give geoms names, so that contacts and sensors can refer to them; robots are shipped without.

    Raises:
        UserError: there are not as many geoms as names: the robot's file is not the one that was expected.
    """
    if len(geoms) != len(names):
        raise UserError(f"found {len(geoms)} geoms where {len(names)} were expected ({', '.join(names)}).")
    for geom, name in zip(geoms, names, strict=True):
        geom.name = name


def geoms_of_class(spec: mujoco.MjSpec, *classes: str) -> list[mujoco.MjsGeom]:
    """Geoms of these default classes, in the order of the file."""
    return [geom for geom in spec.geoms if geom.classname is not None and geom.classname.name in classes]


def keep_collisions(
    spec: mujoco.MjSpec, names: Iterable[str], *, contype: int | None = None, conaffinity: int | None = None
) -> None:
    """Turn collisions off but for the named geoms. Pairs that a file lists one by one (`<pair>`) stay as they are.

    Args:
        names: Geoms that go on colliding.
        contype, conaffinity: New masks of these; two geoms collide if the contype of one meets the conaffinity of the
            other. contype 0 and conaffinity 1 collide with `add_floor`'s floor and not with each other.
    """
    kept = require_geoms(spec, names)
    for geom in spec.geoms:
        if geom not in kept:
            geom.contype = geom.conaffinity = 0
    for geom in kept:
        if contype is not None:
            geom.contype = contype
        if conaffinity is not None:
            geom.conaffinity = conaffinity


def drop_visuals(spec: mujoco.MjSpec, keep: Collection[str] = ()) -> None:
    """Delete what cannot be touched: geoms that collide with nothing, then meshes, textures and materials unused.

    Comes after `keep_collisions`. Masses stay: a body whose inertia follows from its geoms gets it written down first
    (its meshes are read for that). Geoms that sensors or pairs name stay, too.

    Args:
        keep: Names of geoms to keep all the same.
    """
    named = {*keep, *(pair.geomname1 for pair in spec.pairs), *(pair.geomname2 for pair in spec.pairs)}
    named |= {name for sensor in spec.sensors for name in (sensor.objname, sensor.refname)}
    idle = [geom for geom in spec.geoms if not geom.contype and not geom.conaffinity]
    idle = [geom for geom in idle if not geom.name or geom.name not in named]
    for body in spec.bodies:
        if body.name != "world" and not body.explicitinertial and any(geom.parent == body for geom in idle):
            spec.adopt_inertial(body)
    for geom in idle:
        spec.delete(geom)
    _drop_assets(spec)


def drop_sensors(spec: mujoco.MjSpec) -> None:
    """Delete the sensors. MuJoCo computes all of them in every physics step; an accelerometer costs a third of it."""
    for sensor in list(spec.sensors):
        spec.delete(sensor)


def drop_keyframes(spec: mujoco.MjSpec) -> None:
    """Delete the keyframes, which do not fit any more once a joint is added."""
    for key in list(spec.keys):
        spec.delete(key)


def add_keyframe(spec: mujoco.MjSpec, name: str, qpos: Sequence[float], ctrl: Sequence[float] | None = None) -> None:
    """Add a keyframe: qpos (nq,), ctrl (nu,) or zeros."""
    key = spec.add_key(name=name, qpos=list(qpos))
    if ctrl is not None:
        key.ctrl = list(ctrl)


def add_floor(spec: mujoco.MjSpec, friction: tuple[float, float, float] = (1.0, 0.005, 0.0001)) -> mujoco.MjsGeom:
    """Add an endless floor named "floor" at z = 0.

    Args:
        friction: Sliding (1), torsional and rolling (m); MuJoCo's defaults. Where both touch with the same priority,
            MuJoCo takes the larger of two coefficients.
    """
    return spec.worldbody.add_geom(
        name=FLOOR, type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0.0, 0.0, 0.05], friction=list(friction)
    )


def add_sensors(spec: mujoco.MjSpec, kind: mujoco.mjtSensor, of: mujoco.mjtObj, names: Mapping[str, str]) -> None:
    """Add sensors of one kind.

    Args:
        kind: Such as `mjtSensor.mjSENS_FRAMEPOS`. Position and velocity sensors cost little after a step,
            acceleration and force sensors a whole substep.
        of: Sort of object that they are attached to, such as `mjtObj.mjOBJ_GEOM`.
        names: Name of the sensor -> name of the object.
    """
    for name, object_name in names.items():
        spec.add_sensor(name=name, type=kind, objtype=of, objname=object_name)


def add_tracking_camera(spec: mujoco.MjSpec, name: str, body: str, offset: tuple[float, float, float]) -> None:
    """Add a camera that follows a body without turning with it.

    Args:
        body: A child of the world.
        offset: From the body to the camera, m, in world axes; the camera looks back at the body.
    """
    (mount,) = require_bodies(spec, [body])
    back = np.asarray(offset, dtype=float) / np.linalg.norm(offset)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(back, right), back], axis=1)  # columns: the camera's x, y and z
    # A tracking camera keeps the place and the direction that it has where the body stands in the file.
    stands = np.zeros(9)
    mujoco.mju_quat2Mat(stands, mount.quat)
    to_body = stands.reshape(3, 3).T
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, (to_body @ axes).ravel())
    mount.add_camera(name=name, mode=mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM, pos=to_body @ offset, quat=quat)


def set_servos(spec: mujoco.MjSpec, servos: Mapping[str, Servo]) -> None:
    """Make the actuators of these joints position servos. Targets are limited to the joint's range.

    Args:
        servos: Joint -> its servo. Joints that are not named keep what they have.

    Raises:
        UserError: the model lacks a joint, or a joint has no actuator.
    """
    by_joint = {actuator.target: actuator for actuator in spec.actuators}
    joints = require_joints(spec, servos)
    _require(by_joint, servos, "actuator on joint", spec)
    for joint, servo in zip(joints, servos.values(), strict=True):
        actuator = by_joint[joint.name]
        actuator.set_to_position(kp=servo.stiffness, kv=servo.damping)
        actuator.inheritrange = 1.0
        if servo.force_limit is not None:
            actuator.forcelimited = mujoco.mjtLimited.mjLIMITED_TRUE
            actuator.forcerange = [-servo.force_limit, servo.force_limit]
        if servo.armature is not None:
            joint.armature = servo.armature


def compile_spec(spec: mujoco.MjSpec, what: str) -> mujoco.MjModel:
    """Compile. Raises UserError with MuJoCo's reason; `what` names the model in it."""
    try:
        return spec.compile()
    except ValueError as error:
        raise UserError(f"MuJoCo cannot compile {what}: {' '.join(str(error).split())}") from error


def _require(known: Mapping[str, object], names: Iterable[str], sort: str, spec: mujoco.MjSpec) -> list:
    missing = [name for name in names if name not in known]
    if missing:
        hint = did_you_mean(missing[0], [name for name in known if name])
        others = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise UserError(f"the model '{spec.modelname}' has no {sort} '{missing[0]}'{others}.{hint}")
    return [known[name] for name in names]


def _drop_assets(spec: mujoco.MjSpec) -> None:
    """Delete meshes, materials and textures that nothing refers to."""
    meshes = {geom.meshname for geom in spec.geoms}
    for mesh in list(spec.meshes):
        # A mesh without a name is called after its file.
        if (mesh.name or mesh.file.rpartition("/")[2].rpartition(".")[0]) not in meshes:
            spec.delete(mesh)
    materials = {thing.material for things in (spec.geoms, spec.sites, spec.skins, spec.tendons) for thing in things}
    for material in list(spec.materials):
        if material.name not in materials:
            spec.delete(material)
    textures = {name for material in spec.materials for name in material.textures}
    for texture in list(spec.textures):
        if texture.type != mujoco.mjtTexture.mjTEXTURE_SKYBOX and texture.name not in textures:
            spec.delete(texture)
