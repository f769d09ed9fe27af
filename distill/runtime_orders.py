"""What a body is told at present, and until when: the one thing that the slow loop writes and the fast loop reads.

An order replaces the one before it in one assignment, so that a reader sees either, and never half of one. When its
time is up the body is told to stand still: a duration that is over is as planned; a planner that decides and has said
nothing for `hold_s` is silent, which is a fault and is noted.

Times are simulated seconds, passed in; no clock is asked here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Order:
    """An instruction as System 1 takes it."""

    instruction: str
    """In words."""
    prepared: Any
    """What System 1 made of the words: context tokens, or a command's place."""


@dataclass(frozen=True)
class Lapse:
    """An order whose time was up before another one came."""

    time_s: float
    instruction: str
    why: Literal["duration over", "planner silent"]


@dataclass(frozen=True)
class _Slot:
    order: Order
    told_s: float
    ends_s: float
    timed: bool


class InForce:
    """The order in force. `tell` and `renew` belong to one thread, `at` to another one."""

    def __init__(self, still: Order, hold_s: float) -> None:
        """
        Args:
            still: What the body is told when nothing else is in force.
            hold_s: How long an order without a duration holds after it was last confirmed.
        """
        self.still = still
        self.hold_s = hold_s
        self.lapses: list[Lapse] = []
        """Every lapse, in order; only the reader's thread adds to it."""
        self._slot = _Slot(still, 0.0, math.inf, True)
        self._lapsed: _Slot | None = None

    def tell(self, order: Order, now_s: float, duration_s: float | None) -> None:
        """Put an order in force at `now_s`. The same words without a duration once more only confirm it."""
        slot = self._slot
        if duration_s is not None:
            self._slot = _Slot(order, now_s, now_s + duration_s, True)
        elif not slot.timed and slot.order.instruction == order.instruction and now_s < slot.ends_s:
            self._slot = _Slot(slot.order, slot.told_s, now_s + self.hold_s, False)
        else:
            self._slot = _Slot(order, now_s, now_s + self.hold_s, False)

    def stand_still(self, now_s: float) -> None:
        """Stand still from now on, until told otherwise."""
        self._slot = _Slot(self.still, now_s, math.inf, True)

    def at(self, now_s: float) -> Order:
        """What the body is told at this time."""
        slot = self._slot
        if now_s < slot.ends_s - 1e-9:
            return slot.order
        if slot is not self._lapsed:
            self._lapsed = slot
            if slot.order.instruction != self.still.instruction:
                why = "duration over" if slot.timed else "planner silent"
                self.lapses.append(Lapse(now_s, slot.order.instruction, why))
        return self.still

    def runs_until(self) -> float:
        """When the duration of the order in force is over (simulated s); that of one without is over at once."""
        slot = self._slot
        return slot.ends_s if slot.timed and slot.order is not self.still else -math.inf
