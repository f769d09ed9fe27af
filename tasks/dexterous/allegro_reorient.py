"""An Allegro hand, palm up, that turns a cube to one random orientation after another.

The cube is 7 cm wide and weighs 0.1 kg; its friction is that of the object in Menagerie's scene of the hand. The pose
that holds it was found here by random search for the one from which random actions drop it last. What happens in a
step stands in `tasks.dexterous.in_hand` (targets, goals, signals), what the policy sees in `tasks.dexterous.reorient`.

Does not model: noise and delay of cameras that would see the cube.
Axes: N worlds, 16 actions. The hand is fixed, its palm up and tilted so that the fingers are 0.13 rad above the
horizontal.
"""

from __future__ import annotations

from tasks.dexterous.in_hand import Grasp, signal_table
from tasks.dexterous.reorient import CubeReorient
from tasks.robots import allegro

CUBE_HALF_M = 0.035
CUBE_FRICTION = (0.7, 0.002, 0.002)
"""Sliding, torsional, rolling: the object in Menagerie's scene of this hand."""

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


class AllegroReorient(CubeReorient):
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
    cube_half_m = CUBE_HALF_M
    cube_friction = CUBE_FRICTION
    signal_table = signal_table(
        GRASP,
        fingers="index, middle, ring, thumb",
        thing="cube",
        position="4 each of index, middle, ring finger (sideways, 3 that curl), thumb",
    )
