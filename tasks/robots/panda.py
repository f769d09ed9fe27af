"""Franka Emika's Panda with its gripper, from Menagerie, as a training model.

Kept as shipped: masses, joints, limits of torque, the gripper with the tendon and the equality that couple its
fingers. Changed, each measured in tests/tasks/test_robots_hands.py:

- The arm's servos are those of Menagerie's own mjx_panda.xml: a fifth of the stiffness, damping in the joints. Those
  of panda.xml saturate at an error of 0.02 rad, which targets that move at 25 Hz exceed at each step; they need a
  timestep of 2 ms (a random walk of the targets for 3 s differs by 0.02 rad from one of 0.5 ms, at 10 ms by 0.3 rad).
- With these the timestep is 10 ms where the file has 2 ms. Its integrator, implicitfast, stays.
- What collides. As shipped every link does, with meshes and 12 boxes for two fingers. Here a finger is its largest
  pad and a box fitted to its mesh, the hand is a box fitted to its mesh, and the links touch nothing: a task with
  this arm keeps things in front of the gripper. They collide with the task's own geoms, never with each other.

Does not model: gravity compensation of the real arm's controller; the servos sag.
"""

from __future__ import annotations

import mujoco

from tasks.robots.edit import (
    Physics,
    Servo,
    drop_keyframes,
    drop_visuals,
    geoms_of_class,
    keep_collisions,
    name_geoms,
    require_joints,
    set_physics,
    set_servos,
)
from tasks.robots.menagerie import robot_spec

ROBOT = "franka_emika_panda"
FILE = "panda.xml"
ARM_JOINTS = tuple(f"joint{i}" for i in range(1, 8))
FINGER_JOINTS = ("finger_joint1", "finger_joint2")
FINGER_RANGE_M = 0.04
"""How far each finger opens: the robot's file."""
GRIP_OFFSET_M = 0.1034
"""From the hand's frame along its z to the point between the fingertips: Franka's documented hand-to-TCP distance."""
MAX_JOINT_SPEED_RAD_S = 2.175
"""Of joints 1 to 4, the slower ones: Franka's data sheet."""

SERVOS = {
    **{joint: Servo(1000.0, 20.0) for joint in ("joint1", "joint2")},
    **{joint: Servo(750.0, 4.0) for joint in ("joint3", "joint4")},
    **{joint: Servo(300.0, 2.0) for joint in ("joint5", "joint6", "joint7")},
}
JOINT_DAMPING_N_M_S = (40.0, 40.0, 40.0, 40.0, 2.0, 2.0, 2.0)
"""Both from Menagerie's mjx_panda.xml."""

HAND_COLLISION = "hand"
FINGER_COLLISIONS = ("left_finger", "right_finger")
PAD_COLLISIONS = ("left_pad", "right_pad")
OBJECT_CONTYPE, OBJECT_CONAFFINITY = 0, 1
"""Masks for what the gripper shall touch: it then touches nothing else."""

PHYSICS = Physics(timestep_s=0.01, integrator=mujoco.mjtIntegrator.mjINT_IMPLICITFAST, iterations=20, ls_iterations=20)


def training_spec() -> mujoco.MjSpec:
    """The training model, its base at the origin facing +x, without floor. Raises UserError as `robot_spec`."""
    spec = robot_spec(ROBOT, FILE)
    require_joints(spec, (*ARM_JOINTS, *FINGER_JOINTS))
    _fit_collisions(spec)
    keep_collisions(spec, (HAND_COLLISION, *FINGER_COLLISIONS, *PAD_COLLISIONS), contype=1, conaffinity=0)
    drop_visuals(spec)
    drop_keyframes(spec)
    set_physics(spec, PHYSICS)
    set_servos(spec, SERVOS)
    for joint, damping in zip(require_joints(spec, ARM_JOINTS), JOINT_DAMPING_N_M_S, strict=True):
        joint.damping = [damping, 0.0, 0.0]
    add_grip_sites(spec)
    return spec


def visual_spec() -> mujoco.MjSpec:
    """The robot as shipped, for videos; the same joints in the same order. Raises UserError as `robot_spec`."""
    spec = robot_spec(ROBOT, FILE)
    drop_keyframes(spec)
    add_grip_sites(spec)
    return spec


def add_grip_sites(spec: mujoco.MjSpec) -> None:
    """Add the sites "grip", between the fingertips, and "left_tip", "right_tip" on the pads, all invisible."""
    hidden = {"size": [0.001, 0.0, 0.0], "group": 5}
    spec.body("hand").add_site(name="grip", pos=[0.0, 0.0, GRIP_OFFSET_M], **hidden)
    for side in ("left", "right"):
        # The middle of the largest pad, in the finger's frame: the robot's file.
        spec.body(f"{side}_finger").add_site(name=f"{side}_tip", pos=[0.0, 0.0055, 0.0445], **hidden)


def _fit_collisions(spec: mujoco.MjSpec) -> None:
    """Name what collides, and put boxes fitted to the meshes in place of them."""
    name_geoms(geoms_of_class(spec, "fingertip_pad_collision_1"), PAD_COLLISIONS)
    meshes = {"hand_c": [HAND_COLLISION], "finger_0": list(FINGER_COLLISIONS)}
    for mesh, names in meshes.items():
        geoms = [geom for geom in geoms_of_class(spec, "collision") if geom.meshname == mesh]
        name_geoms(geoms, names)
        for geom in geoms:
            geom.type = mujoco.mjtGeom.mjGEOM_BOX  # MuJoCo fits it to the mesh when it compiles
