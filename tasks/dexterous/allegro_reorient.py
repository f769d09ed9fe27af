"""An Allegro hand, palm up, that turns a cube to one random orientation after another.

The cube is 7 cm wide and weighs 0.1 kg; its friction is that of the object in Menagerie's scene of the hand. The pose
that holds it was found here by random search for the one from which random actions drop it last. What happens in a
step stands in `tasks.dexterous.in_hand`: targets, goals, signals.

Does not model: noise and delay of cameras that would see the cube.
Axes: N worlds, 16 actions. The hand is fixed, its palm up and tilted so that the fingers are 0.13 rad above the
horizontal.
"""

from __future__ import annotations

import mujoco
import torch
from torch import Tensor

from tasks.dexterous.in_hand import HAND_HEIGHT_M, Grasp, InHandTask, add_cube, signal_table, solid
from tasks.math import quat_axis, quat_conjugate, quat_multiply
from tasks.robots import allegro
from tasks.signals import Signals

CUBE_HALF_M = 0.035
CUBE_MASS_KG = 0.1
CUBE_FRICTION = (0.7, 0.002, 0.002)
"""Sliding, torsional, rolling: the object in Menagerie's scene of this hand."""
MIN_HEIGHT_M = HAND_HEIGHT_M - 0.05
"""Below this the cube's centre is under the palm: MuJoCo Playground's LEAP hand."""

SPREAD_REST_RAD = (-0.12, 0.0, 0.12)
"""Index, middle, ring finger: fingertips together."""
CURL_REST_RAD = (0.43, 0.10, 0.95)
THUMB_REST_RAD = (0.62, 0.42, -0.06, 0.97)
GRASP = Grasp(
    training_spec=allegro.training_spec,
    visual_spec=allegro.visual_spec,
    root=allegro.ROOT,
    tips=allegro.TIPS,
    joints=16,
    servo_joints=tuple((joint,) for joint in range(16)),
    rest_rad=(*(angle for spread in SPREAD_REST_RAD for angle in (spread, *CURL_REST_RAD)), *THUMB_REST_RAD),
    reach_rad=0.8,
    tilt_rad=0.13,
    roll_rad=0.05,
    hold_position_m=(-0.035, 0.0075, 0.547),
)

GOAL_WITHIN_RAD = 0.1
"""A new goal follows when the rotation left is smaller."""


class AllegroReorient(InHandTask):
    """Turn the cube to the goal, then to the next."""

    name = "allegro-reorient"
    instruction = "make the hand turn the cube to the goal orientation, then to the next one, as often as it can"
    action_doc = (
        "16 servo targets, each in [-1, 1] (values outside are clipped): 0 is the rest pose that holds the cube, 1 is "
        "0.8 rad more, within the joint's limits; targets are smoothed over two steps. Order: four joints each of "
        "index, middle, ring finger (sideways, then three that curl) and thumb."
    )
    robot = allegro.ROBOT
    grasp = GRASP
    goal_tolerance_rad = GOAL_WITHIN_RAD
    signal_table = signal_table(
        GRASP,
        fingers="index, middle, ring, thumb",
        thing="cube",
        position="4 each of index, middle, ring finger (sideways, 3 that curl), thumb",
    )
    fitness_unit = "goals per episode"
    fitness_doc = "goals reached in an episode of 20 s; one is reached within 0.1 rad, then the next one counts"
    fitness_reduce = "sum"

    def add_object(self, body: mujoco.MjsBody, *, ghost: bool, visual: bool) -> None:
        """The cube."""
        material = solid(body, ghost=ghost, mass_kg=CUBE_MASS_KG, friction=CUBE_FRICTION)
        add_cube(body, CUBE_HALF_M, ghost=ghost, visual=visual, material=material)

    def observe(self, signals: Signals) -> Tensor:
        """What the policy sees (N, 84): joints, servos, fingertips from the cube, the cube, the rotation left as two
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
