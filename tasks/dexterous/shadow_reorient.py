"""A Shadow hand, palm up, that turns a cube to one random orientation after another.

The cube is 6.5 cm wide and weighs 0.1 kg; its friction is that of the object in Menagerie's scene of the hand. The
pose that holds it was set by hand (`tasks.dexterous.shadow_grasp`). What happens in a step stands in
`tasks.dexterous.in_hand`: targets, goals, signals.

Does not model: noise and delay of cameras that would see the cube.
Axes: N worlds, 20 actions. The forearm is fixed; the wrist moves.
"""

from __future__ import annotations

import mujoco
import torch
from torch import Tensor

from tasks.dexterous.in_hand import HAND_HEIGHT_M, InHandTask, add_cube, signal_table, solid
from tasks.dexterous.shadow_grasp import FINGER_ORDER, JOINT_ORDER, SERVO_ORDER, shadow_grasp
from tasks.math import quat_axis, quat_conjugate, quat_multiply
from tasks.robots import shadow
from tasks.signals import Signals

CUBE_HALF_M = 0.0325
CUBE_MASS_KG = 0.1
CUBE_FRICTION = (0.5, 0.01, 0.003)
"""Sliding, torsional, rolling: the object in Menagerie's scene of this hand."""
MIN_HEIGHT_M = HAND_HEIGHT_M - 0.05
"""Below this the cube's centre is under the palm: MuJoCo Playground's LEAP hand."""
GRASP = shadow_grasp(hold_position_m=(0.30, 0.0, 0.602))

GOAL_WITHIN_RAD = 0.1
"""A new goal follows when the rotation left is smaller."""


class ShadowReorient(InHandTask):
    """Turn the cube to the goal, then to the next."""

    name = "shadow-reorient"
    instruction = "make the shadow hand turn the cube to the goal orientation, then to the next one, as often as it can"
    action_doc = (
        "20 servo targets, each in [-1, 1] (values outside are clipped): 0 is the rest pose that holds the cube, 1 is "
        f"0.8 rad more, within the joint's limits; targets are smoothed over two steps. Order: {SERVO_ORDER}."
    )
    robot = shadow.ROBOT
    grasp = GRASP
    goal_tolerance_rad = GOAL_WITHIN_RAD
    signal_table = signal_table(GRASP, fingers=FINGER_ORDER, thing="cube", position=JOINT_ORDER)
    fitness_unit = "goals per episode"
    fitness_doc = "goals reached in an episode of 20 s; one is reached within 0.1 rad, then the next one counts"
    fitness_reduce = "sum"

    def add_object(self, body: mujoco.MjsBody, *, ghost: bool, visual: bool) -> None:
        """The cube."""
        material = solid(body, ghost=ghost, mass_kg=CUBE_MASS_KG, friction=CUBE_FRICTION)
        add_cube(body, CUBE_HALF_M, ghost=ghost, visual=visual, material=material)

    def observe(self, signals: Signals) -> Tensor:
        """What the policy sees (N, 110): joints, servos, fingertips from the cube, the cube, the rotation left as two
        columns of its matrix."""
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

    def terminate(self, signals: Signals) -> dict[str, Tensor]:
        """The cube has fallen off the hand."""
        return {"dropped": signals["object_position_w"][:, 2] < MIN_HEIGHT_M}

    def fitness(self, signals: Signals) -> Tensor:
        """1 in a step that reaches the goal."""
        return (signals["rotation_distance"][:, 0] < GOAL_WITHIN_RAD).float()
