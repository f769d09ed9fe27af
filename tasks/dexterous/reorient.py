"""What tasks share in which a hand turns a cube to one random orientation after another.

It says what the policy sees of the cube and how the cube is built. Knows no hand: a task's file names it, with the
cube's size and friction. What happens in a step stands in `tasks.dexterous.in_hand`.

Axes: N worlds, A servos, J joints, F fingers.
"""

from __future__ import annotations

from typing import ClassVar

import mujoco
import torch
from torch import Tensor

from tasks.dexterous.in_hand import InHandTask, add_cube, solid
from tasks.math import quat_axis, quat_conjugate, quat_multiply
from tasks.signals import Signals

CUBE_MASS_KG = 0.1


class CubeReorient(InHandTask):
    """Base class: turn the cube to the goal, then to the next."""

    cube_half_m: ClassVar[float]
    """Half the edge of the cube."""
    cube_friction: ClassVar[tuple[float, float, float]]
    """Sliding, torsional, rolling."""
    goal_tolerance_rad = 0.1
    fitness_unit = "goals per episode"
    fitness_doc = "goals reached in an episode of 20 s; one is reached within 0.1 rad, then the next one counts"

    def add_object(self, body: mujoco.MjsBody, *, ghost: bool, visual: bool) -> None:
        """The cube."""
        material = solid(body, ghost=ghost, mass_kg=CUBE_MASS_KG, friction=self.cube_friction)
        add_cube(body, self.cube_half_m, ghost=ghost, visual=visual, material=material)

    def observe(self, signals: Signals) -> Tensor:
        """What the policy sees (N, 2 J + A + 3 F + 24): joints, servos, fingertips from the cube, the cube, the
        rotation left as two columns of its matrix and as axis times angle."""
        orientation = signals["object_orientation_w"]
        left = quat_multiply(signals["goal_orientation_w"], quat_conjugate(orientation))
        parts = [
            signals["joint_pos_fraction"],
            signals["joint_vel"],
            signals["servo_target_offset"],
            signals["fingertip_offset_w"],
            signals["hold_offset_w"],
            quat_axis(orientation, 0),
            quat_axis(orientation, 1),
            signals["object_linear_velocity_w"],
            signals["object_angular_velocity_w"],
            quat_axis(left, 0),
            quat_axis(left, 1),
            signals["rotation_to_goal_w"],
        ]
        return torch.cat(parts, dim=-1)
