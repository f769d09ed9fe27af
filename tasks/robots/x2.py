"""Skydio's X2 from Menagerie, as a training model.

Kept as shipped: masses and inertia, the four thrust motors and where they push, the air's density and viscosity and
so the drag of its shapes. Changed, measured in tests/tasks/test_robot_hands.py: nothing collides, and the meshes and
the texture are dropped; the file's timestep of 10 ms stays. The tests ask for the same trajectory.

Does not model: rotor spin-up, battery, ground effect.
"""

from __future__ import annotations

import mujoco

from tasks.robots.edit import drop_keyframes, drop_visuals, keep_collisions, require_bodies
from tasks.robots.menagerie import robot_spec

ROBOT = "skydio_x2"
FILE = "x2.xml"
ROOT = "x2"


def training_spec() -> mujoco.MjSpec:
    """The training model. Raises UserError as `robot_spec`."""
    spec = robot_spec(ROBOT, FILE)
    require_bodies(spec, [ROOT])
    keep_collisions(spec, ())
    drop_visuals(spec)
    drop_keyframes(spec)
    return spec


def visual_spec() -> mujoco.MjSpec:
    """The drone as shipped, for videos. Raises UserError as `robot_spec`."""
    spec = robot_spec(ROBOT, FILE)
    drop_keyframes(spec)
    return spec
