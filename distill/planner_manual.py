"""A planner that is a person: instructions are typed while the body moves, one a line.

    run forward        until the next line
    2.5 turn left      for 2.5 s
    quit               stand still, and end

A line that is no instruction is answered with what was expected, and changes nothing.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

from distill.planner import Picture, PlannerDone, Subtask, Turn, Vocabulary
from distill.planner_script import parse_line
from tasks.errors import UserError

ENDS = ("quit", "exit", "q")


class ManualPlanner:
    """Reads lines from a stream in a thread of its own."""

    name = "manual"
    wants_images = False

    def __init__(self, lines: TextIO, vocabulary: Vocabulary, say: Callable[[str], None] = print) -> None:
        """
        Args:
            lines: Where a person types.
            vocabulary: What the body can be told.
            say: Takes a line for the person.
        """
        self._vocabulary, self._say = vocabulary, say
        self._typed: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._now: Subtask | None = None
        self._seconds: float | None = None
        self._count = self._refused = 0
        self._reader = threading.Thread(target=self._read, args=(lines,), name="typed instructions", daemon=True)
        say(f"type an instruction, or seconds and an instruction, or quit: {', '.join(vocabulary.names)}")
        self._reader.start()

    def plan(self, images: Sequence[Picture], goal: str, history: Sequence[Turn]) -> Subtask:
        """What was typed last. A duration is counted here: told to the runtime it would keep the next line waiting."""
        fresh = self._newest()
        if fresh is not None:
            self._now, self._seconds = Subtask(fresh.instruction), fresh.until
        elif self._now is None:
            self._now = Subtask(self._vocabulary.still, None, "nothing was typed")
        elif self._seconds is not None and history and history[-1].held_s >= self._seconds:
            self._now, self._seconds = Subtask(self._vocabulary.still, None, "its time is up"), None
        return self._now

    def facts(self) -> Mapping[str, Any]:
        """Lines that were taken and refused."""
        return {"typed": self._count, "refused": self._refused}

    def close(self) -> None:
        """The thread reads on until its stream ends; nobody listens any more."""

    def _newest(self) -> Subtask | None:
        """The last good line since the last call; PlannerDone where the person has left."""
        found = None
        while True:
            try:
                line = self._typed.get_nowait()
            except queue.Empty:
                return found
            if line is None or line.strip().casefold() in ENDS:
                raise PlannerDone("the person has ended it")
            if not line.strip():
                continue
            try:
                found = self._understood(line)
            except UserError as error:
                self._refused += 1
                self._say(str(error))
            else:
                self._count += 1

    def _understood(self, line: str) -> Subtask:
        words = line.split(maxsplit=1)
        timed = words[0].replace(".", "", 1).isdigit()
        return parse_line(words, self._vocabulary) if timed else Subtask(self._vocabulary.checked(line))

    def _read(self, lines: TextIO) -> None:
        for line in lines:
            self._typed.put(line)
        self._typed.put(None)
