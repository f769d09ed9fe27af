"""Two Shadow hands on fixed bases, palms up, face each other; the right one throws a cube to the left one.

After Bi-DexHands' HandOver: bases 1 m apart, episodes of 75 steps at 60 Hz (1.25 s),
over when the cube is below 0.2 m. Differs: what `tasks.bimanual.two_hands` and `tasks.bimanual.throw` say, and the
goal, 0.39 m from where the cube starts instead of 0.25 m: the cube starts on the palm, not on the fingers.

Does not model: drag, and what a camera would see of the cube.
Axes: N worlds, 40 actions. The right hand's fingers point along +x, the left one's along -x.
"""

from __future__ import annotations

import math

from tasks.bimanual.throw import ThrowTask, throw_table
from tasks.bimanual.two_hands import action_doc
from tasks.robots.shadow_pair import Place

HALF_GAP_M, HEIGHT_M = 0.5, 0.5
HOLD_FROM_BASE_M, HOLD_ABOVE_BASE_M = 0.305, 0.1
"""Where the cube lies in a hand, from the end of its forearm."""
TILT_RAD = 0.15
"""Of the fingers, so that the cube does not roll off."""


class ShadowOver(ThrowTask):
    """Throw the cube from the right hand into the left one."""

    name = "shadow-over"
    instruction = (
        "make two shadow hands, whose palms are up and whose bases are fixed, pass a cube: the right hand holds it and "
        "throws it through the air to the goal on the palm of the left hand, which faces it and cannot be reached by "
        "rolling"
    )
    action_doc = action_doc("palm up, fingers half closed: it holds the cube", None)
    right = Place((-HALF_GAP_M, 0.0, HEIGHT_M), 0.0, TILT_RAD)
    left = Place((HALF_GAP_M, 0.0, HEIGHT_M), math.pi, TILT_RAD)
    start_position_m = (HOLD_FROM_BASE_M - HALF_GAP_M, -0.007, HEIGHT_M + HOLD_ABOVE_BASE_M)
    goal_position_m = (HALF_GAP_M - HOLD_FROM_BASE_M, 0.0, HEIGHT_M + HOLD_ABOVE_BASE_M)
    min_height_m = 0.2
    camera_position_m = (0.15, -0.8, 0.9)
    camera_target_m = (0.0, 0.0, 0.55)
    signal_table = throw_table(moving=False)
