"""Two Shadow hands in one model, right and left, each where a task puts it, on a fixed or a moving base.

The hands are those of `tasks.robots.shadow`, as they are there. A moving base has six joints with servos, three slides
and three hinges, in place of the free body that Bi-DexHands pushes about. Added to the hands, and why:

- The timestep is 1/120 s: with two of them a control period is Bi-DexHands' 1/60 s.
- On a moving base every link of a hand floats (gravcomp): whatever carries the hand bears its weight. Bi-DexHands'
  hands weigh nothing.
- Where hands can meet, links of the right hand collide with those of the left one. On fixed bases they cannot meet.
- A site on each palm.

Does not model: the arms that would carry the hands, and how far these reach.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from tasks.robots import shadow
from tasks.robots.edit import add_sensors, require_bodies
from tasks.robots.shadow import Side

SIDES: tuple[Side, Side] = ("right", "left")
TIMESTEP_S = 1.0 / 120.0
BASE_JOINTS = ("x", "y", "z", "yaw", "pitch", "roll")
"""Of a moving base, in the order of qpos: slides along the world's axes, then turns about the hand's own: the palm's
normal, across the palm, along the fingers."""
BASE_STIFFNESS_N_M, BASE_FORCE_LIMIT_N = 600.0, 83.0
"""The limit is Bi-DexHands' force at action 1: 0.05 x 100000 / 60."""
BASE_DAMPING_N_S_M = 2.0 * math.sqrt(BASE_STIFFNESS_N_M * 3.8)
"""Critical for the hand's 3.8 kg, so that a target is reached in about 0.3 s."""
BASE_STIFFNESS_N_M_RAD, BASE_TORQUE_LIMIT_N_M = 40.0, 8.3
"""The limit is Bi-DexHands' torque at action 1: 0.5 x 1000 / 60."""
BASE_DAMPING_N_M_S_RAD = 2.0 * math.sqrt(BASE_STIFFNESS_N_M_RAD * 0.12)
"""Critical for the hand's 0.12 kg m2 about the end of its forearm, across the fingers."""
_PREFIX = {"right": "", "left": "left/"}
"""Of what is named in a hand's file."""
_HANDS_MEET = 4
"""Bit of the collision masks that the links of two hands share."""


@dataclass(frozen=True)
class Place:
    """Where a hand is. As shipped it lies palm up with its fingers along +x, the end of its forearm at the origin."""

    position_m: tuple[float, float, float]
    """Of the end of the forearm, world frame."""
    heading_rad: float = 0.0
    """Turn about the vertical: 0 points the fingers along +x, pi / 2 along +y."""
    tilt_rad: float = 0.0
    """How far the fingers point above the horizontal."""
    roll_rad: float = 0.0
    """Turn about the direction of the fingers: pi is palm down."""


@dataclass(frozen=True)
class Reach:
    """How far a moving base goes from its place."""

    slide_m: float
    """Along each of the world's axes, either way."""
    turn_rad: float
    """About each of the hand's axes, either way."""


def prefix(side: Side) -> str:
    """What the names of a hand's parts begin with in the pair."""
    return _PREFIX[side] + shadow.prefix(side)


def pair_spec(right: Place, left: Place, reach: Reach | None, *, visual: bool = False) -> mujoco.MjSpec:
    """Both hands. Joints: those of the right hand's base (if it moves), of the right hand, then the left ones likewise;
    actuators: the right hand's 20, those of its base, then the left ones.

    Args:
        right, left: Where they are.
        reach: How far their bases move; None: they are fixed.
        visual: The hands as shipped, for videos.

    Raises:
        UserError: as `tasks.robots.menagerie.robot_spec`.
    """
    make = shadow.visual_spec if visual else shadow.training_spec
    specs = {side: make(side) for side in SIDES}
    for side, place in zip(SIDES, (right, left), strict=True):
        spec = specs[side]
        (root,) = require_bodies(spec, [shadow.root(side)])
        shipped = _normed(root.quat)
        root.pos, root.quat = list(place.position_m), list(_multiply(_orientation(place), shipped))
        if reach is not None:
            _move_base(spec, side, _multiply(_orientation(place), shipped), shipped, reach)
            if not visual:
                _let_hands_meet(spec, side)
        palm = spec.body(f"{shadow.prefix(side)}palm")
        # Where Bi-DexHands measures a hand's position. The site's z is the palm's normal.
        half = math.sqrt(0.5)
        palm.add_site(
            name=f"{shadow.prefix(side)}palm_surface",
            pos=[0.0, -0.02, 0.08],
            quat=[half, half, 0.0, 0.0],
            size=[0.001] * 3,
            group=5,
        )
    pair = specs["right"]
    # Meshes of both hands have the same names; the left hand's get a prefix, as does the rest of it.
    pair.attach(specs["left"], prefix=_PREFIX["left"], frame=pair.worldbody.add_frame())
    pair.option.timestep = TIMESTEP_S
    _add_sensors(pair)
    return pair


def _move_base(spec: mujoco.MjSpec, side: Side, quat: np.ndarray, shipped: np.ndarray, reach: Reach) -> None:
    """Six joints with servos on the root body of a hand.

    Args:
        quat: Orientation (4,) of the root body in the world.
        shipped: Its orientation in the file, in which the fingers point along +x and the palm up.
    """
    root = spec.body(shadow.root(side))
    slides = [_rotate_inverse(quat, axis) for axis in np.eye(3)]
    turns = [_rotate_inverse(shipped, axis) for axis in np.eye(3)[::-1]]  # z, y, x of the hand
    kinds = [mujoco.mjtJoint.mjJNT_SLIDE] * 3 + [mujoco.mjtJoint.mjJNT_HINGE] * 3
    for name, kind, axis in zip(BASE_JOINTS, kinds, [*slides, *turns], strict=True):
        slide = kind == mujoco.mjtJoint.mjJNT_SLIDE
        far = reach.slide_m if slide else reach.turn_rad
        joint = root.add_joint(name=f"{shadow.prefix(side)}base_{name}", type=kind, axis=list(axis), range=[-far, far])
        limit = BASE_FORCE_LIMIT_N if slide else BASE_TORQUE_LIMIT_N_M
        servo = spec.add_actuator(
            name=joint.name,
            target=joint.name,
            trntype=mujoco.mjtTrn.mjTRN_JOINT,
            ctrlrange=[-far, far],
            forcerange=[-limit, limit],
        )
        servo.set_to_position(
            kp=BASE_STIFFNESS_N_M if slide else BASE_STIFFNESS_N_M_RAD,
            kv=BASE_DAMPING_N_S_M if slide else BASE_DAMPING_N_M_S_RAD,
        )
    for body in spec.bodies:
        if body.name != "world":
            body.gravcomp = 1.0


def _let_hands_meet(spec: mujoco.MjSpec, side: Side) -> None:
    for geom in spec.geoms:
        if geom.contype and side == "left":
            geom.contype |= _HANDS_MEET
        elif geom.contype:
            geom.conaffinity |= _HANDS_MEET


def _add_sensors(spec: mujoco.MjSpec) -> None:
    position, axis = mujoco.mjtSensor.mjSENS_FRAMEPOS, mujoco.mjtSensor.mjSENS_FRAMEZAXIS
    for side in SIDES:
        mark = _PREFIX[side]
        palm = f"{prefix(side)}palm_surface"
        names = {f"{side}_tip{number}_position": mark + tip for number, tip in enumerate(shadow.tips(side))}
        names[f"{side}_palm_position"] = palm
        add_sensors(spec, position, mujoco.mjtObj.mjOBJ_SITE, names)
        add_sensors(spec, axis, mujoco.mjtObj.mjOBJ_SITE, {f"{side}_palm_normal": palm})


def _orientation(place: Place) -> np.ndarray:
    """Rolled about x, tilted up, then turned about z: (4,)."""
    turns = [
        ([0.0, 0.0, 1.0], place.heading_rad),
        ([0.0, 1.0, 0.0], -place.tilt_rad),
        ([1.0, 0.0, 0.0], place.roll_rad),
    ]
    quat = np.array([1.0, 0.0, 0.0, 0.0])
    for axis, angle in turns:
        turn = np.zeros(4)
        mujoco.mju_axisAngle2Quat(turn, axis, angle)
        quat = _multiply(quat, turn)
    return quat


def _multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    product = np.zeros(4)
    mujoco.mju_mulQuat(product, a, b)
    return product


def _normed(quat: Sequence[float]) -> np.ndarray:
    result = np.array(quat, dtype=float)
    return result / np.linalg.norm(result)


def _rotate_inverse(quat: np.ndarray, vector: np.ndarray) -> np.ndarray:
    inverse, result = np.zeros(4), np.zeros(3)
    mujoco.mju_negQuat(inverse, quat)
    mujoco.mju_rotVecQuat(result, vector, inverse)
    return result
