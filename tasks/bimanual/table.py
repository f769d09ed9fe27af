"""The table that stands between two hands: its top, how hands lie in wait over it, masks for what lies on it.

Bi-DexHands' table is 0.6 m high, too. Knows no task.
"""

from __future__ import annotations

import math

import mujoco

from tasks.robots.shadow_pair import Place
from tasks.scene import add_box

TABLE_TOP_M = 0.6
TABLE_HALF_M = (0.22, 0.30)
"""Along x and y."""
TABLE_CONTYPE, TABLE_CONAFFINITY = 1, 1
"""Meets hands (contype 1) and what lies on it (conaffinity 1)."""


def add_table(spec: mujoco.MjSpec) -> None:
    """A block of wood from the floor up to `TABLE_TOP_M`, around x = y = 0."""
    half = TABLE_TOP_M / 2
    add_box(
        spec.worldbody,
        "table",
        (0.0, 0.0, half),
        (*TABLE_HALF_M, half),
        (0.55, 0.45, 0.36, 1.0),
        contype=TABLE_CONTYPE,
        conaffinity=TABLE_CONAFFINITY,
    )


def over_table(side: str, x_m: float, from_middle_m: float, above_m: float, tilt_rad: float = 0.0) -> Place:
    """A hand, palm down, whose fingers point across the table at the other hand.

    Args:
        side: "right" has its forearm at y < 0, "left" at y > 0.
        x_m: Where its middle is along x.
        from_middle_m: From the middle of the table to the end of its forearm.
        above_m: Height of that end above the table's top.
        tilt_rad: How far the fingers point above the horizontal.
    """
    sign = {"right": -1.0, "left": 1.0}[side]
    return Place((x_m, sign * from_middle_m, TABLE_TOP_M + above_m), -sign * math.pi / 2, tilt_rad, math.pi)
