"""Wonik's Allegro hand, right, from Menagerie, as a training model.

Kept as shipped: masses and inertias (the file computes them from the visual meshes; they are written down before
those go), joints, servo gains, every collision shape, elliptic friction cones with impratio 10, contact softness.
Changed, each measured in tests/tasks/test_robot_hands.py:

- The timestep, 10 ms where the file has 2 ms, with implicitfast, which holds the joints' damping.
- Links of the hand pass through each other, but for the four fingertips: these still collide with one another.
- At most 20 iterations of the constraint solver, each with at most 20 of the line search.

Does not model: friction in the gears, limits of torque (the file has none).
"""

from __future__ import annotations

import mujoco

from tasks.robots.edit import Physics, drop_visuals, keep_collisions, require_joints, set_physics
from tasks.robots.menagerie import robot_spec

ROBOT = "wonik_allegro"
FILE = "right_hand.xml"
ROOT = "palm"
FINGERS = ("ff", "mf", "rf", "th")
"""First (index), middle, ring finger, thumb."""
JOINTS = tuple(f"{finger}j{i}" for finger in FINGERS for i in range(4))
TIPS = tuple(f"{finger}_tip" for finger in FINGERS)
"""Sites at the ends of the fingers."""
OBJECT_CONTYPE, OBJECT_CONAFFINITY = 0, 1
"""Masks for what the hand shall touch."""

_TIP_Z_M = {"ff": 0.029, "mf": 0.029, "rf": 0.029, "th": 0.043}
"""Upper ends of the fingertips' capsules: the robot's file."""

PHYSICS = Physics(timestep_s=0.01, integrator=mujoco.mjtIntegrator.mjINT_IMPLICITFAST, iterations=20, ls_iterations=20)


def training_spec() -> mujoco.MjSpec:
    """The training model, palm up, fingers along +x, its palm at the origin. Raises UserError as `robot_spec`."""
    spec = robot_spec(ROBOT, FILE)
    require_joints(spec, JOINTS)
    touching, tips = [], []
    for body in spec.bodies:
        for geom in body.geoms:
            if geom.contype and geom.conaffinity:
                geom.name = f"{body.name}_collision"
                (tips if body.name in TIPS else touching).append(geom.name)
    keep_collisions(spec, [*touching, *tips], contype=1, conaffinity=0)
    for name in tips:
        geom = spec.geom(name)
        geom.contype, geom.conaffinity = 3, 2
    drop_visuals(spec)
    set_physics(spec, PHYSICS)
    _add_tips(spec)
    return spec


def visual_spec() -> mujoco.MjSpec:
    """The hand as shipped, for videos; the same joints in the same order. Raises UserError as `robot_spec`."""
    spec = robot_spec(ROBOT, FILE)
    _add_tips(spec)
    return spec


def _add_tips(spec: mujoco.MjSpec) -> None:
    for finger, site in zip(FINGERS, TIPS, strict=True):
        spec.body(f"{finger}_tip").add_site(
            name=site, pos=[0.0, 0.0, _TIP_Z_M[finger]], size=[0.001, 0.0, 0.0], group=5
        )
