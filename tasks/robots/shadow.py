"""The Shadow hand, right and left, from Menagerie, as a training model.

Kept as shipped: masses, joints, armature and friction, servo gains and force limits, the tendons that couple the last
two joints of each finger, elliptic friction cones with impratio 10, contact softness. Changed, each measured in
tests/tasks/test_robot_hands.py:

- The timestep, 10 ms where the file has 2 ms, with implicitfast, which holds the joints' damping. MuJoCo softens
  contacts to twice the timestep.
- Fingertips collide as capsules fitted to the shipped meshes: capsules and boxes touch by closed formulas, meshes by
  search.
- Forearm, wrist and the knuckles' cylinders, which lie inside the capsules of the fingers, collide with nothing.
- Of the palm's eight overlapping boxes the three small ones that end in the surface of others are left out: a cube
  that lies flat touches each box in four points.
- Links of the hand pass through each other, but for the five fingertips: these still collide with one another.
- At most 20 iterations of the constraint solver, each with at most 20 of the line search.

Does not model: the stretch of the tendons, the touch sensors of the fingertips.
"""

from __future__ import annotations

from typing import Literal

import mujoco

from tasks.robots.edit import Physics, drop_visuals, keep_collisions, require_joints, set_physics
from tasks.robots.menagerie import robot_spec

Side = Literal["right", "left"]

ROBOT = "shadow_hand"
FINGERS = ("FF", "MF", "RF", "LF", "TH")
"""First (index), middle, ring, little finger, thumb."""
COUPLED = ("FF", "MF", "RF", "LF")
"""Fingers whose last two joints share one servo, on the sum of their angles."""
JOINTS = (
    *("WRJ2", "WRJ1"),
    *(f"{finger}J{i}" for finger in ("FF", "MF", "RF") for i in (4, 3, 2, 1)),
    *(f"LFJ{i}" for i in (5, 4, 3, 2, 1)),
    *(f"THJ{i}" for i in (5, 4, 3, 2, 1)),
)
"""In the order of qpos, without the side's prefix."""
ACTUATORS = (
    *("WRJ2", "WRJ1", "THJ5", "THJ4", "THJ3", "THJ2", "THJ1"),
    *(f"{finger}J{i}" for finger in ("FF", "MF", "RF") for i in (4, 3, 0)),
    *("LFJ5", "LFJ4", "LFJ3", "LFJ0"),
)
"""In the order of ctrl; J0 is the sum of J2 and J1."""
SERVO_JOINTS = tuple(
    tuple(JOINTS.index(name[:-1] + part) for part in ("21" if name.endswith("0") else name[-1])) for name in ACTUATORS
)
"""For each actuator the places, in `JOINTS`, of the joints whose sum it sets."""
OBJECT_CONTYPE, OBJECT_CONAFFINITY = 0, 1
"""Masks for what the hand shall touch."""

PHYSICS = Physics(timestep_s=0.01, integrator=mujoco.mjtIntegrator.mjINT_IMPLICITFAST, iterations=20, ls_iterations=20)

_TIP_Z_M = 0.026
"""From the last joint to the end of a fingertip, about the extent of its mesh."""
_IDLE_PALM_BOXES = (3, 5, 6)
"""Places among the palm's boxes: the slanted one under the ridge of the fingers, the thumb's, the ridge's end."""
_IDLE_BODIES = ("forearm", "wrist", "ffknuckle", "mfknuckle", "rfknuckle", "lfknuckle")


def prefix(side: Side) -> str:
    """What every name of the hand begins with: "rh_" or "lh_"."""
    return {"right": "rh_", "left": "lh_"}[side]


def root(side: Side) -> str:
    """The body that the hand hangs on: its forearm."""
    return f"{prefix(side)}forearm"


def tips(side: Side) -> tuple[str, ...]:
    """Sites at the ends of the fingers, in the order of `FINGERS`."""
    return tuple(f"{prefix(side)}{finger.lower()}tip" for finger in FINGERS)


def training_spec(side: Side = "right") -> mujoco.MjSpec:
    """The training model, palm up, fingers along +x, its forearm's end at the origin. Raises UserError as
    `robot_spec`."""
    spec = robot_spec(ROBOT, f"{side}_hand.xml")
    mark = prefix(side)
    require_joints(spec, [mark + joint for joint in JOINTS])
    names, tip_names = [], []
    for body in spec.bodies:
        short = body.name.removeprefix(mark)
        touching = [] if short in _IDLE_BODIES else [geom for geom in body.geoms if geom.contype and geom.conaffinity]
        for number, geom in enumerate(touching):
            if short == "palm" and number in _IDLE_PALM_BOXES:
                continue
            geom.name = f"{body.name}_collision{number}"
            if short.endswith("distal"):
                geom.type = mujoco.mjtGeom.mjGEOM_CAPSULE  # MuJoCo fits it to the mesh when it compiles
                tip_names.append(geom.name)
            else:
                names.append(geom.name)
    keep_collisions(spec, [*names, *tip_names], contype=1, conaffinity=0)
    for name in tip_names:
        geom = spec.geom(name)
        geom.contype, geom.conaffinity = 3, 2
    drop_visuals(spec)
    set_physics(spec, PHYSICS)
    # Equal to the last bits and twice as fast where an object lies on the hand: its contacts are with few joints each.
    spec.option.jacobian = mujoco.mjtJacobian.mjJAC_SPARSE
    _add_tips(spec, side)
    return spec


def visual_spec(side: Side = "right") -> mujoco.MjSpec:
    """The hand as shipped, for videos; the same joints in the same order. Raises UserError as `robot_spec`."""
    spec = robot_spec(ROBOT, f"{side}_hand.xml")
    _add_tips(spec, side)
    return spec


def _add_tips(spec: mujoco.MjSpec, side: Side) -> None:
    for finger, site in zip(FINGERS, tips(side), strict=True):
        body = spec.body(f"{prefix(side)}{finger.lower()}distal")
        body.add_site(name=site, pos=[0.0, 0.0, _TIP_Z_M], size=[0.001, 0.0, 0.0], group=5)
