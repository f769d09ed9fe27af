"""How the right Shadow hand lies under an object that it turns: pose, tilt, and the order of its joints in words.

The pose was set by hand: a cube on the palm, fingers half closed. With all
actions 0 none of 24 cubes fell within 2 s. Knows no task.
"""

from __future__ import annotations

from tasks.dexterous.in_hand import Grasp
from tasks.robots import shadow

FINGER_ORDER = "index, middle, ring, little finger, thumb"
JOINT_ORDER = (
    "wrist sideways, wrist up; 4 each of index, middle, ring finger (sideways, then 3 that curl); little finger: palm, "
    "sideways, 3 that curl; thumb: turn, swing, twist, bend, tip"
)
SERVO_ORDER = (
    "wrist sideways, wrist up; thumb: turn, swing, twist, bend, tip; index, middle, ring finger, 3 each: sideways, "
    "knuckle, the last two joints together; little finger: palm, sideways, knuckle, the last two joints together"
)

WRIST_REST_RAD = (0.0, 0.0)
THUMB_REST_RAD = (0.3, 0.6, 0.0, 0.2, 0.4)
FINGER_REST_RAD = (0.0, 0.6, 0.8)
"""Sideways, knuckle, the sum of the last two."""
LITTLE_PALM_REST_RAD = 0.2


def shadow_grasp(hold_position_m: tuple[float, float, float]) -> Grasp:
    """The hand, holding an object at a place in the world."""
    return Grasp(
        training_spec=shadow.training_spec,
        visual_spec=shadow.visual_spec,
        root=shadow.root("right"),
        tips=shadow.tips("right"),
        joints=len(shadow.JOINTS),
        servo_joints=shadow.SERVO_JOINTS,
        rest_rad=(*WRIST_REST_RAD, *THUMB_REST_RAD, *FINGER_REST_RAD * 3, LITTLE_PALM_REST_RAD, *FINGER_REST_RAD),
        reach_rad=0.8,
        tilt_rad=0.15,
        roll_rad=0.0,
        hold_position_m=hold_position_m,
    )
