"""ANYmal C (ANYbotics), 12 joints, 45 kg: the training model, and what tasks need to know of the robot.

What differs from Menagerie's anymal_c.xml and what it does to the motion; `tests/tasks/test_robots.py` measures it
(same targets; trotting on the spot, 2 s: base within 2 cm and 6 degrees; standing, 4 s: height within 1 cm):

- Only the feet collide, and only with the floor. Until the base is below `MIN_HEIGHT_M` nothing else can reach it.
- Feet slide and do not roll or twist (condim 3 for 6): a sphere of 3 cm hardly resists turning anyway.
- The joints' dry friction (0.1 N m of 80) is left out: it makes 12 rows of constraints in each step.
- 10 ms steps with implicitfast for 2 ms with Euler, as in IsaacGymEnvs' Anymal (20 ms in 2 substeps).
- The impedance of the feet's contacts ends at 0.97, where the file has 1, which is a contact without give: with these
  steps of 1024 robots whose joints were kicked at random for 2 s (0.5 rad) 31 flew off, at up to 3e6 m/s, now none, and
  none is faster than 4.2 m/s. A standing robot feels no difference: it rests at half that depth.
- Solver tolerance 1e-4. The cone stays elliptic with impratio 100: with these soft feet a pyramidal one, though faster,
  lets the legs slide apart (5 cm in 1 s), and so does impratio 5 in the elliptic one (the base sinks 15 cm in 8 s).
- The servos. The file's (100 N m/rad, damping 1 N m s/rad in the joint) are those of nobody's controller; here they are
  legged_gym's for this robot, 80 N m/rad and 2 N m s/rad, of which 1 is the joint's own.

Joints: leg by leg (left front, right front, left hind, right hind), in each hip abduction, hip flexion, knee flexion.
"""

from __future__ import annotations

import mujoco

from tasks.robots import edit
from tasks.robots.menagerie import robot_spec

ROBOT = "anybotics_anymal_c"
LEGS = ("LF", "RF", "LH", "RH")
JOINTS = tuple(f"{leg}_{joint}" for leg in LEGS for joint in ("HAA", "HFE", "KFE"))
FEET = tuple(f"{leg}_FOOT" for leg in LEGS)
"""Names that the model's feet get; also those of their position sensors. `<foot>_velocity` is the velocity sensor."""
FOOT_RADIUS_M = 0.03
STAND_POSE_RAD = (0.0, 0.4, -0.8, 0.0, 0.4, -0.8, 0.0, -0.4, 0.8, 0.0, -0.4, 0.8)
"""Default pose of legged_gym's and Isaac Lab's ANYmal C."""
STAND_HEIGHT_M = 0.54
"""Base height in that pose with the feet just in the floor (0.549 m touching; they sink by 17 mm under the weight)."""
MIN_HEIGHT_M = 0.3
"""Base height above which no knee can reach the floor: the thigh is 0.285 m long."""
STIFFNESS_N_M = 80.0
"""Servo stiffness, N m/rad; legged_gym's ANYmal C."""
DAMPING_N_M_S = 1.0
"""Servo damping, N m s/rad; with the joint's own 1.0 it makes legged_gym's 2.0."""
TORQUE_LIMIT_N_M = 80.0
"""Of each joint, N m; the robot's file."""
MAX_IMPEDANCE = 0.97
"""Largest impedance of the feet's contacts, dmax of MuJoCo's solimp."""

PHYSICS = edit.Physics(
    timestep_s=0.01,
    integrator=mujoco.mjtIntegrator.mjINT_IMPLICITFAST,
    solver=mujoco.mjtSolver.mjSOL_NEWTON,
    iterations=30,
    ls_iterations=50,  # with fewer the elliptic cones are not solved, and worlds blow up
    cone=mujoco.mjtCone.mjCONE_ELLIPTIC,
    tolerance=1e-4,
)
CAMERA = "track"


def training_model() -> mujoco.MjModel:
    """The model that is simulated. Raises UserError where the robot is not to be had or not the expected one."""
    spec = robot_spec(ROBOT, "anymal_c.xml")
    edit.require_joints(spec, JOINTS)
    feet = edit.geoms_of_class(spec, "foot")
    edit.name_geoms(feet, FEET)
    for foot in feet:
        foot.condim = 3
        foot.solimp[1] = MAX_IMPEDANCE
    edit.keep_collisions(spec, FEET, contype=0, conaffinity=1)
    edit.drop_visuals(spec)
    edit.add_floor(spec)
    for joint in spec.joints:
        joint.frictionloss = 0.0
    _set_servos(spec)
    geom = mujoco.mjtObj.mjOBJ_GEOM
    edit.add_sensors(spec, mujoco.mjtSensor.mjSENS_FRAMEPOS, geom, {foot: foot for foot in FEET})
    edit.add_sensors(spec, mujoco.mjtSensor.mjSENS_FRAMELINVEL, geom, {f"{foot}_velocity": foot for foot in FEET})
    edit.add_tracking_camera(spec, CAMERA, "base", (1.2, -2.4, 0.9))
    edit.set_physics(spec, PHYSICS)
    return edit.compile_spec(spec, "the training model of ANYmal C")


def visual_model() -> mujoco.MjModel:
    """The whole robot on Menagerie's floor, for pictures; same joints, same order."""
    spec = robot_spec(ROBOT, "scene.xml")
    edit.add_tracking_camera(spec, CAMERA, "base", (1.2, -2.4, 0.9))
    return edit.compile_spec(spec, "ANYmal C as shipped")


def shipped_model(*, servos: bool = True) -> mujoco.MjModel:
    """The robot as shipped, to measure the training model against; with the training model's servos, or its own."""
    spec = robot_spec(ROBOT, "scene.xml")
    if servos:
        _set_servos(spec)
    return edit.compile_spec(spec, "ANYmal C as shipped")


def _set_servos(spec: mujoco.MjSpec) -> None:
    servo = edit.Servo(STIFFNESS_N_M, DAMPING_N_M_S, TORQUE_LIMIT_N_M)
    edit.set_servos(spec, dict.fromkeys(JOINTS, servo))
