"""A planner that reads positions from the simulator: the upper bound, and what works without an endpoint.

It chooses among the same commands as any planner, through the same interface, and looks at no picture. The way is
straight: turn until the next post is ahead, then go; around a post that is not due, beside it. A body that flies comes
to the post's height first.

`steer` is pure: where the body is to go, and which of its motions comes nearest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distill.planner import Picture, Subtask, Turn, still_command
from tasks.commands import Command, CommandSet
from tasks.errors import UserError
from tasks.tour import TourFacts

AHEAD_RAD = 0.15
"""A body that turns goes on turning until the way lies so near ahead."""
ASIDE_RAD = 0.40
"""A body that walks turns when the way lies farther aside."""
SLOW_M = 1.6
"""Nearer than this to where it goes, the body walks slowly: it shall not run past."""
MARGIN_M = 0.35
"""Added to the distance at which a post counts as visited, when going past one that is not due."""
LEVEL_M = 0.3
"""A flying body climbs or descends where the post's height is farther away than this."""
SHORTEST_S, LONGEST_S = 0.3, 3.0
"""Durations of timed subtasks."""


@dataclass(frozen=True)
class Gaits:
    """Which commands of a body walk and turn, and how fast."""

    fast: str
    slow: str
    left: str
    right: str
    still: str
    fast_m_s: float
    slow_m_s: float
    turn_rad_s: float
    up: str | None = None
    down: str | None = None
    climb_m_s: float = 0.0


def find_gaits(commands: CommandSet) -> Gaits:
    """The gaits of a body whose commands are velocities along its heading: forward, to the left, (up,) and yaw rate.

    Raises UserError where one is missing.
    """

    def along(axis: int) -> list[Command]:
        """Commands with a number on one axis alone, from the least to the largest."""
        found = [c for c in commands if c.values[axis] and not any(c.values[:axis]) and not any(c.values[axis + 1 :])]
        return sorted(found, key=lambda c: c.values[axis])

    size = len(commands[0].values)
    ahead = [c for c in along(0) if c.values[0] > 0] if size in (3, 4) else []
    turns = along(size - 1)
    if not ahead or len(turns) < 2 or not turns[0].values[-1] < 0 < turns[-1].values[-1]:
        raise UserError(
            f"the oracle needs commands to go forward and to turn either way; there are {', '.join(commands.names)}."
        )
    climbs = along(2) if size == 4 else []
    if climbs and not climbs[0].values[2] < 0 < climbs[-1].values[2]:
        raise UserError(f"the oracle needs commands to climb and to descend; there are {', '.join(commands.names)}.")
    return Gaits(
        fast=ahead[-1].name,
        slow=ahead[0].name,
        left=turns[-1].name,
        right=turns[0].name,
        still=still_command(commands),
        fast_m_s=ahead[-1].values[0],
        slow_m_s=ahead[0].values[0],
        turn_rad_s=turns[-1].values[-1],
        up=climbs[-1].name if climbs else None,
        down=climbs[0].name if climbs else None,
        climb_m_s=climbs[-1].values[2] if climbs else 0.0,
    )


def waypoint(facts: TourFacts) -> np.ndarray:
    """Where to go now (2,): the due post, or a point beside a post that is not due and stands in the way."""
    here, due = facts.position[:2], facts.posts[facts.order[facts.visited], :2]
    way = due - here
    distance = float(np.linalg.norm(way))
    clear = facts.reach_m + MARGIN_M
    passed = set(facts.order[: facts.visited + 1])
    obstacle, nearest = None, distance
    for place, post in enumerate(facts.posts[:, :2]):
        if place in passed or distance < 1e-6:
            continue
        along = float((post - here) @ way) / distance
        aside = float(np.linalg.norm(post - here - way * along / distance))
        if 0.0 < along < nearest and aside < clear:
            obstacle, nearest = post, along
    if obstacle is None:
        return due
    to = obstacle - here
    apart = max(float(np.linalg.norm(to)), 1e-6)
    # The tangent to the circle around the obstacle, on the side on which the due post lies of it.
    side = 1.0 if to[0] * way[1] - to[1] * way[0] >= 0.0 else -1.0
    angle = math.asin(min(1.0, clear / apart)) if apart > clear else 0.5 * math.pi
    cos, sin = math.cos(side * angle), math.sin(side * angle)
    tangent = np.array([cos * to[0] - sin * to[1], sin * to[0] + cos * to[1]]) / apart
    length = math.sqrt(max(apart**2 - clear**2, 0.0)) if apart > clear else 0.5
    return here + tangent * max(length, 0.5)


def steer(facts: TourFacts, gaits: Gaits, turning: bool) -> tuple[str, float]:
    """The command for now, and for how long it is right (s) if the body does what it is told.

    turning: whether the body turns at present; it then turns on until it faces the way well.
    """
    if facts.visited >= len(facts.order):
        return gaits.still, LONGEST_S
    above = float(facts.posts[facts.order[facts.visited], 2] - facts.position[2])
    if gaits.up and gaits.down and abs(above) > LEVEL_M:
        return (gaits.up if above > 0 else gaits.down), abs(above) / gaits.climb_m_s
    way = waypoint(facts) - facts.position[:2]
    distance = float(np.linalg.norm(way))
    aside = math.remainder(math.atan2(way[1], way[0]) - facts.heading_rad, math.tau)
    if abs(aside) > (AHEAD_RAD if turning else ASIDE_RAD):
        return (gaits.left if aside > 0 else gaits.right), abs(aside) / gaits.turn_rad_s
    if distance > SLOW_M:
        return gaits.fast, (distance - 0.5 * SLOW_M) / gaits.fast_m_s
    return gaits.slow, max(distance - 0.5 * facts.reach_m, 0.0) / gaits.slow_m_s


class OraclePlanner:
    """Plans a tour from the simulator's positions."""

    name = "oracle"
    wants_images = False

    def __init__(self, look: Callable[[], TourFacts], commands: CommandSet, *, timed: bool = False) -> None:
        """
        Args:
            look: The newest facts of the tour.
            commands: Of the body.
            timed: Whether each subtask holds for a duration instead of until the next look: for answers that come late.

        Raises:
            UserError: the body has no commands to walk and to turn.
        """
        self._look, self._timed = look, timed
        self._gaits = find_gaits(commands)
        self._turning = False

    def plan(self, images: Sequence[Picture], goal: str, history: Sequence[Turn]) -> Subtask:
        """The command that comes nearest to the way to the next post."""
        facts = self._look()
        command, seconds = steer(facts, self._gaits, self._turning)
        self._turning = command in (self._gaits.left, self._gaits.right)
        if facts.visited < len(facts.order):
            colour = facts.colours[facts.order[facts.visited]]
            distance = float(np.linalg.norm(facts.posts[facts.order[facts.visited], :2] - facts.position[:2]))
            note = f"to the {colour} post, {distance:.1f} m away"
        else:
            note = "all posts visited"
        until = min(max(seconds, SHORTEST_S), LONGEST_S) if self._timed else None
        return Subtask(command, until, note)

    def facts(self) -> Mapping[str, Any]:
        """Nothing of note."""
        return {}

    def close(self) -> None:
        """Holds nothing."""
