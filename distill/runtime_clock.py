"""The fast loop's clock: steps at a fixed period by the monotonic clock, and how well that was kept.

A step that comes late does not make the next ones hurry: after more than one period of delay the schedule starts anew,
since catching up would run the body faster than it is meant to.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SPIN_S = 0.0003
"""The last part of each wait is spent looking at the clock: a sleep ends up to this much late."""


@dataclass(frozen=True)
class Rates:
    """How a loop kept its rate. Times in seconds."""

    steps: int
    wanted_s: float
    """Period that was asked for."""
    mean_s: float
    median_s: float
    p99_s: float
    longest_s: float
    """Of the periods from the start of a step to the start of the next one."""
    late_share: float
    """Share of the periods that are more than 20 % longer than asked for."""
    work_median_s: float
    work_p99_s: float
    """Of the time a step takes before it waits."""
    restarts: int
    """How often a step came more than a period late, and the schedule started anew."""


class Pacer:
    """Keeps a period. `wait` before each step; `worked` after it."""

    def __init__(
        self,
        period_s: float,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """period_s: 0 waits for nothing."""
        self.period_s = period_s
        self.restarts = 0
        self._clock, self._sleep = clock, sleep
        self._starts: list[float] = []
        self._works: list[float] = []
        self._due = 0.0

    def wait(self) -> None:
        """Wait until the next step is due."""
        now = self._clock()
        if not self._starts:
            self._due = now
        elif self.period_s:
            self._due += self.period_s
            if now > self._due + self.period_s:
                self._due = now
                self.restarts += 1
            if self._due - now > SPIN_S:
                self._sleep(self._due - now - SPIN_S)
            while (now := self._clock()) < self._due:
                pass
        self._starts.append(now)

    def worked(self) -> None:
        """The step's work is done."""
        self._works.append(self._clock() - self._starts[-1])

    def periods(self) -> np.ndarray:
        """Seconds between the starts of steps (steps - 1,)."""
        return np.diff(np.asarray(self._starts))

    def rates(self) -> Rates | None:
        """What was kept; None with fewer than two steps."""
        periods, works = self.periods(), np.asarray(self._works)
        if not len(periods) or not len(works):
            return None
        limit = 1.2 * self.period_s if self.period_s else np.inf
        return Rates(
            steps=len(self._starts),
            wanted_s=self.period_s,
            mean_s=float(periods.mean()),
            median_s=float(np.median(periods)),
            p99_s=float(np.quantile(periods, 0.99)),
            longest_s=float(periods.max()),
            late_share=float((periods > limit).mean()),
            work_median_s=float(np.median(works)),
            work_p99_s=float(np.quantile(works, 0.99)),
            restarts=self.restarts,
        )
