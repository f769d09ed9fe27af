"""Two Shadow hands whose bases move, palms up, face each other; the right one passes a cube to the left one.

After Bi-DexHands' CatchUnderarm: the goal is farther away than in HandOver and 5 cm
higher, episodes of 75 steps at 60 Hz (1.25 s), over when the cube is below 0.1 m. Differs: what
`tasks.bimanual.two_hands` and `tasks.bimanual.throw` say. A base goes 0.15 m either way, and the goal is 0.49 m
away: it has to be thrown, where the free bases of Bi-DexHands can carry the object to its goal.

Does not model: drag, and what a camera would see of the cube.
Axes: N worlds, 52 actions. The right hand's fingers point along +x, the left one's along -x.
"""

from __future__ import annotations

import math

from tasks.bimanual.throw import ThrowTask, throw_table
from tasks.bimanual.two_hands import action_doc
from tasks.robots.shadow_pair import Place, Reach

HALF_GAP_M, HEIGHT_M = 0.55, 0.5
HOLD_FROM_BASE_M, HOLD_ABOVE_BASE_M = 0.305, 0.1
"""Where the cube lies in a hand, from the end of its forearm."""
GOAL_ABOVE_M = 0.05
TILT_RAD = 0.15
"""Of the fingers, so that the cube does not roll off."""
REACH = Reach(slide_m=0.15, turn_rad=0.6)


class ShadowCatchUnderarm(ThrowTask):
    """Pass the cube from the right hand to the left one."""

    name = "shadow-catch-underarm"
    instruction = (
        "make two shadow hands, whose palms are up and which can move and turn as a whole, pass a cube: the right hand "
        "throws it underarm to the goal above the palm of the left hand, which catches it"
    )
    action_doc = action_doc("palm up, fingers half closed: it holds the cube", REACH)
    right = Place((-HALF_GAP_M, 0.0, HEIGHT_M), 0.0, TILT_RAD)
    left = Place((HALF_GAP_M, 0.0, HEIGHT_M), math.pi, TILT_RAD)
    reach = REACH
    start_position_m = (HOLD_FROM_BASE_M - HALF_GAP_M, -0.007, HEIGHT_M + HOLD_ABOVE_BASE_M)
    goal_position_m = (HALF_GAP_M - HOLD_FROM_BASE_M, 0.0, HEIGHT_M + HOLD_ABOVE_BASE_M + GOAL_ABOVE_M)
    min_height_m = 0.1
    camera_position_m = (0.15, -0.9, 0.95)
    camera_target_m = (0.0, 0.0, 0.55)
    signal_table = throw_table(moving=True)
