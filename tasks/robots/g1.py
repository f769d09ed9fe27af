"""Unitree G1, 29 joints, 33 kg: the training model, and what tasks need to know of the robot.

What differs from Menagerie's g1.xml and what it does to the motion; `tests/tasks/test_robots.py` measures it (same
targets, stepping on the spot, 0.5 s, pelvis within 3 cm and 2 degrees; nobody balances, so small differences grow):

- Only the feet collide, four spheres each as shipped, and only with the floor. Until the pelvis is below `MIN_HEIGHT_M`
  nothing else can reach the floor; legs and arms can pass through each other.
- The joints' dry friction (0.3 N m) is left out: it makes 29 rows of constraints in each step.
- 10 ms steps for 2 ms, solver tolerance 1e-4, sparse matrices; the file's accelerometers and gyroscopes are left out.
- The servos. The file's (500 N m/rad in every joint, 0.01 kg m2 of rotor) would tear a wrist of 5 N m; here stiffness,
  damping, limits and rotors are those of mjlab's G1: the motor of each joint, tuned to 10 Hz with damping ratio 2.

Joints in the order of the file: left leg, right leg, waist, left arm, right arm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import mujoco

from tasks.robots import edit
from tasks.robots.menagerie import robot_spec

ROBOT = "unitree_g1"
SIDES = ("left", "right")
LEG_JOINTS = ("hip_pitch", "hip_roll", "hip_yaw", "knee", "ankle_pitch", "ankle_roll")
WAIST_JOINTS = ("waist_yaw", "waist_roll", "waist_pitch")
ARM_JOINTS = ("shoulder_pitch", "shoulder_roll", "shoulder_yaw", "elbow", "wrist_roll", "wrist_pitch", "wrist_yaw")
JOINTS = (
    *(f"{side}_{joint}_joint" for side in SIDES for joint in LEG_JOINTS),
    *(f"{joint}_joint" for joint in WAIST_JOINTS),
    *(f"{side}_{joint}_joint" for side in SIDES for joint in ARM_JOINTS),
)


@dataclass(frozen=True)
class Motor:
    """A Unitree motor with its gearbox."""

    armature_kg_m2: float
    """Inertia of the rotor seen at the joint."""
    torque_limit_n_m: float
    """Of the motor at the joint."""


# Menagerie's g1_mjx.xml and mjlab's g1_constants.py, which works the armatures out of Unitree's rotors and gears.
SMALL = Motor(0.003609725, 25.0)
MEDIUM = Motor(0.01017752004, 88.0)
LARGE = Motor(0.025101925, 139.0)
WRIST = Motor(0.00425, 5.0)
PAIR = Motor(2 * SMALL.armature_kg_m2, 2 * SMALL.torque_limit_n_m)
"""Two small motors that move a joint together through a parallel linkage."""
MOTORS = {
    "hip_pitch": MEDIUM, "hip_roll": LARGE, "hip_yaw": MEDIUM, "knee": LARGE, "ankle_pitch": PAIR, "ankle_roll": PAIR,
    "waist_yaw": MEDIUM, "waist_roll": PAIR, "waist_pitch": PAIR,
    "shoulder_pitch": SMALL, "shoulder_roll": SMALL, "shoulder_yaw": SMALL, "elbow": SMALL,
    "wrist_roll": SMALL, "wrist_pitch": WRIST, "wrist_yaw": WRIST,
}  # fmt: skip
NATURAL_FREQUENCY_RAD_S = 2.0 * math.pi * 10.0
DAMPING_RATIO = 2.0
"""mjlab's: servos of 10 Hz on the rotor alone, overdamped since the limbs add inertia."""

_BENT = {"hip_pitch": -0.312, "knee": 0.669, "ankle_pitch": -0.363, "shoulder_pitch": 0.2, "elbow": 0.6}
STAND_POSE_RAD = (
    *(_BENT.get(joint, 0.0) for _ in SIDES for joint in LEG_JOINTS),
    *(0.0 for _ in WAIST_JOINTS),
    *({**_BENT, "shoulder_roll": roll}.get(joint, 0.0) for roll in (0.2, -0.2) for joint in ARM_JOINTS),
)
"""Standing with bent knees: mjlab's KNEES_BENT_KEYFRAME."""
STAND_HEIGHT_M = 0.76
"""Pelvis height of that pose; mjlab."""
MIN_HEIGHT_M = 0.5
"""Pelvis height above which no knee can reach the floor: they are 0.43 m below the pelvis at most."""
FOOT_SPHERES = tuple(f"{side}_foot_{number}" for side in SIDES for number in range(4))
"""Names that the spheres under the soles get; also those of their position sensors."""
FOOT_RADIUS_M = 0.005

PHYSICS = edit.Physics(
    timestep_s=0.01,
    integrator=mujoco.mjtIntegrator.mjINT_IMPLICITFAST,
    solver=mujoco.mjtSolver.mjSOL_NEWTON,
    iterations=10,
    ls_iterations=20,
    tolerance=1e-4,
    jacobian=mujoco.mjtJacobian.mjJAC_SPARSE,
)
CAMERA = "track"


def motor(joint: str) -> Motor:
    """The motor of a joint, such as "left_knee_joint"."""
    return MOTORS[joint.removeprefix("left_").removeprefix("right_").removesuffix("_joint")]


def servo(joint: str) -> edit.Servo:
    """The position servo of a joint: stiffness J w^2 and damping 2 z J w of its motor's rotor J."""
    kind = motor(joint)
    stiffness = kind.armature_kg_m2 * NATURAL_FREQUENCY_RAD_S**2
    damping = 2.0 * DAMPING_RATIO * kind.armature_kg_m2 * NATURAL_FREQUENCY_RAD_S
    return edit.Servo(stiffness, damping, kind.torque_limit_n_m, kind.armature_kg_m2)


def training_model() -> mujoco.MjModel:
    """The model that is simulated. Raises UserError where the robot is not to be had or not the expected one."""
    spec = robot_spec(ROBOT, "g1.xml")
    edit.require_joints(spec, JOINTS)
    edit.name_geoms(edit.geoms_of_class(spec, "foot"), FOOT_SPHERES)
    edit.keep_collisions(spec, FOOT_SPHERES, contype=0, conaffinity=1)
    edit.drop_sensors(spec)
    edit.drop_visuals(spec)
    edit.add_floor(spec)
    for joint in edit.require_joints(spec, JOINTS):
        joint.frictionloss = 0.0
    _set_servos(spec)
    position, velocity = mujoco.mjtSensor.mjSENS_FRAMEPOS, mujoco.mjtSensor.mjSENS_FRAMELINVEL
    edit.add_sensors(spec, position, mujoco.mjtObj.mjOBJ_GEOM, {name: name for name in FOOT_SPHERES})
    edit.add_sensors(spec, velocity, mujoco.mjtObj.mjOBJ_SITE, {f"{s}_foot_velocity": f"{s}_foot" for s in SIDES})
    edit.add_tracking_camera(spec, CAMERA, "pelvis", (1.4, -2.6, 0.5))
    edit.set_physics(spec, PHYSICS)
    return edit.compile_spec(spec, "the training model of the G1")


def visual_model() -> mujoco.MjModel:
    """The whole robot on Menagerie's floor, for pictures; same joints, same order."""
    spec = robot_spec(ROBOT, "scene.xml")
    edit.add_tracking_camera(spec, CAMERA, "pelvis", (1.4, -2.6, 0.5))
    return edit.compile_spec(spec, "the G1 as shipped")


def shipped_model(*, servos: bool = True) -> mujoco.MjModel:
    """The robot as shipped, to measure the training model against; with the training model's servos, or its own."""
    spec = robot_spec(ROBOT, "scene.xml")
    if servos:
        _set_servos(spec)
    return edit.compile_spec(spec, "the G1 as shipped")


def _set_servos(spec: mujoco.MjSpec) -> None:
    edit.set_servos(spec, {joint: servo(joint) for joint in JOINTS})
