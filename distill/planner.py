"""System 2: what a planner is asked and answers. It sees pictures and a goal, and says what the body shall do next.

    plan(images, goal, history) -> Subtask(instruction, until, note)

A subtask holds for a duration, after which the body stands still until the next one is there, or until the planner
decides otherwise; then the planner is asked again and again, and has to say so each time. Planners may be slow, fail or
die: whoever runs them (`distill.runtime`) never waits for them, and `PlannerError` is all that they may raise on
purpose.

Planners: `distill.planner_oracle` (positions from the simulator), `planner_script` (a file), `planner_manual` (a
person), and those that talk to an endpoint, which live a floor higher, where HTTP is (`eureka.planner_openai`).

Knows nothing of bodies, simulators and threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tasks.commands import CommandSet
from tasks.errors import UserError, did_you_mean

MOST_WORDS = 40
"""Words of an instruction at most; what a head is told has less than ten."""
LONGEST_S = 60.0
"""Longest duration of a subtask."""
NOTE_KEPT = 400
"""Characters of a note that are kept."""


@dataclass(frozen=True)
class Picture:
    """What one camera shows."""

    camera: str
    """Name of the camera."""
    jpeg: bytes
    """The picture, encoded."""
    width: int
    height: int
    """Pixels."""


@dataclass(frozen=True)
class Subtask:
    """What the body shall do next."""

    instruction: str
    """In words: what System 1 is told."""
    until: float | None = None
    """Seconds that it holds from when it is told; None: the planner decides."""
    note: str = ""
    """Why, for people."""

    def __post_init__(self) -> None:
        words = self.instruction.split()
        if not words or len(words) > MOST_WORDS:
            raise UserError(f"an instruction has {len(words)} words; expected 1 to {MOST_WORDS}.")
        if self.until is not None and not (math.isfinite(self.until) and 0.0 < self.until <= LONGEST_S):
            raise UserError(f"a subtask holds for {self.until} s; expected above 0 and at most {LONGEST_S:g} s.")


@dataclass(frozen=True)
class Turn:
    """A subtask that was told before."""

    time_s: float
    """Simulated time at which it was told."""
    subtask: Subtask
    """What was told."""
    held_s: float
    """How long it has been in force, simulated time."""


class PlannerError(Exception):
    """A planner has no answer this time. The message is one line."""

    def __init__(self, message: str, *, final: bool = False, kind: str = "failed") -> None:
        """
        Args:
            message: One line for people.
            final: Whether asking again is pointless.
            kind: A word for counting, such as "timeout" or "rate_limited".
        """
        super().__init__(" ".join(message.split()))
        self.final = final
        self.kind = kind


class PlannerDone(Exception):
    """A planner has said all it had to say: the body stands still, and the run ends."""


class Planner(Protocol):
    """Who plans. `plan` is called from one thread, one call at a time."""

    name: str
    """For tables."""
    wants_images: bool
    """Whether pictures are to be drawn for it."""

    def plan(self, images: Sequence[Picture], goal: str, history: Sequence[Turn]) -> Subtask:
        """What to do next.

        Args:
            images: What the cameras show, in the order in which they were asked for; none where `wants_images` is not.
            goal: What the person wants, in words.
            history: What was told before, oldest first.

        Raises:
            PlannerError: no answer this time, or ever again.
            PlannerDone: there is nothing more to do.
        """
        ...

    def facts(self) -> Mapping[str, Any]:
        """Figures for the record, such as tokens spent."""
        ...

    def close(self) -> None:
        """Let go of whatever is held: a request on its way need not be waited for."""
        ...


class Vocabulary:
    """What a body was taught to be told: the phrases of its commands, or only their names."""

    def __init__(self, commands: CommandSet, *, free: bool = False) -> None:
        """free: whether other words are let through, to a System 1 that reads them as they are."""
        self.commands = commands
        self.free = free
        self.still = still_command(commands)
        """The phrase for standing still."""

    @property
    def names(self) -> tuple[str, ...]:
        """What a planner may choose from."""
        return self.commands.names

    def checked(self, instruction: str) -> str:
        """The instruction, blanks tidied. Raises UserError for words that the body was not taught, unless `free`."""
        plain = " ".join(instruction.split()).rstrip(".")
        if not self.free:
            self.commands.understand(plain)
        return plain


def still_command(commands: CommandSet) -> str:
    """Name of the command whose numbers are all 0. Raises UserError where there is none, or more than one."""
    still = [command.name for command in commands if not any(command.values)]
    if len(still) != 1:
        raise UserError(
            f"{len(still)} commands ask for no motion at all ({', '.join(still) or 'none'}), expected exactly one: it "
            "is what a body does when its planner is silent."
        )
    return still[0]


def parse_until(value: Any) -> float | None:
    """`until` from plain data: a number of seconds above 0, or null or 'planner decides'. Raises UserError."""
    if value is None or (isinstance(value, str) and value.strip().casefold() in ("", "planner decides")):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"until is {str(value)[:40]!r}; expected a number of seconds, or 'planner decides'.")
    return float(value)


def choose(name: str, known: Iterable[str]) -> str:
    """`name`, if it is one of the known planners. Raises UserError with "did you mean"."""
    known = tuple(known)
    if name not in known:
        raise UserError(f"there is no planner '{name}'; expected one of {', '.join(known)}.{did_you_mean(name, known)}")
    return name
