"""A Shadow hand, palm up, that turns a cube to one random orientation after another.

The cube is 6.5 cm wide and weighs 0.1 kg; its friction is that of the object in Menagerie's scene of the hand. The
pose that holds it was set by hand (`tasks.dexterous.shadow_grasp`). What happens in a step stands in
`tasks.dexterous.in_hand` (targets, goals, signals), what the policy sees in `tasks.dexterous.reorient`.

Does not model: noise and delay of cameras that would see the cube.
Axes: N worlds, 20 actions. The forearm is fixed; the wrist moves.
"""

from __future__ import annotations

from tasks.dexterous.in_hand import signal_table
from tasks.dexterous.reorient import CubeReorient
from tasks.dexterous.shadow_grasp import FINGER_ORDER, JOINT_ORDER, SERVO_ORDER, shadow_grasp
from tasks.robots import shadow

CUBE_HALF_M = 0.0325
CUBE_FRICTION = (0.5, 0.01, 0.003)
"""Sliding, torsional, rolling: the object in Menagerie's scene of this hand."""
GRASP = shadow_grasp(hold_position_m=(0.30, 0.0, 0.602))


class ShadowReorient(CubeReorient):
    """Turn the cube to the goal, then to the next."""

    name = "shadow-reorient"
    instruction = "make the shadow hand turn the cube to the goal orientation, then to the next one, as often as it can"
    action_doc = (
        "20 servo targets, each in [-1, 1] (values outside are clipped): 0 is the rest pose that holds the cube, 1 is "
        f"0.8 rad more, within the joint's limits; targets are smoothed over two steps. Order: {SERVO_ORDER}."
    )
    robot = shadow.ROBOT
    grasp = GRASP
    cube_half_m = CUBE_HALF_M
    cube_friction = CUBE_FRICTION
    signal_table = signal_table(GRASP, fingers=FINGER_ORDER, thing="cube", position=JOINT_ORDER)
