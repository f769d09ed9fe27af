"""When to try again: back-off with jitter, and a circuit breaker. Pure: times are passed in, nothing is sent."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class BackOff:
    """Waiting between tries: `first_s * factor**n`, at most `longest_s`, times a random 0.5 to 1."""

    first_s: float = 1.0
    factor: float = 2.0
    longest_s: float = 60.0

    def wait_s(self, attempt: int, rng: random.Random) -> float:
        """Seconds to wait after failed try number `attempt` (from 0). Jitter keeps parallel asks apart."""
        # Beyond 64 doublings the power would overflow, and `longest_s` has long been reached.
        return min(self.longest_s, self.first_s * self.factor ** min(attempt, 64)) * rng.uniform(0.5, 1.0)


class Breaker:
    """Tells an endpoint that is down from asks that fail.

    Closed as long as the endpoint answers. After `limit` failures in a row, on two asks at least, it is open: the
    caller makes one request at a time and none before `pause_until`; each that fails doubles the pause. One answer
    closes it. One ask that fails over and over may be at fault itself, and never opens it.

    Args:
        limit: failures in a row that open it.
        first_s, longest_s: the shortest and the longest pause.
    """

    def __init__(self, limit: int = 5, first_s: float = 2.0, longest_s: float = 60.0) -> None:
        self.limit = limit
        self.first_s = first_s
        self.longest_s = longest_s
        self.failures = 0
        self.pause_until = 0.0
        self._pause_s = first_s
        self._asks: set[str] = set()

    @property
    def is_open(self) -> bool:
        """Whether the endpoint counts as down."""
        return self.failures >= self.limit and len(self._asks) > 1

    def answered(self) -> None:
        """The endpoint answered, whatever it said."""
        self.failures, self.pause_until, self._pause_s = 0, 0.0, self.first_s
        self._asks.clear()

    def failed(self, ask_id: str, now: float) -> None:
        """A request for `ask_id` failed at time `now` in a way that says something about the endpoint."""
        self.failures += 1
        self._asks.add(ask_id)
        # Requests that were in flight when it opened fail within the first pause; they tell nothing new.
        if self.is_open and now >= self.pause_until:
            self.pause_until = now + self._pause_s
            self._pause_s = min(self.longest_s, 2 * self._pause_s)
