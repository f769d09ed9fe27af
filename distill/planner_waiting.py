"""A planner that lets its body stand until something holds in the world: "when the ant is there, ..."."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distill.planner import Picture, Planner, Subtask, Turn


class WaitingPlanner:
    """Another planner, once it is its turn."""

    def __init__(self, planner: Planner, ready: Callable[[], bool], still: str, what: str) -> None:
        """
        Args:
            planner: Plans from then on.
            ready: Whether it is time; once it was, it stays so.
            still: The instruction until then.
            what: What is waited for, in words.
        """
        self.name = planner.name
        self.wants_images = planner.wants_images
        self._planner, self._ready, self._still, self._what = planner, ready, still, what
        self._on = False
        self._waited = 0

    def plan(self, images: Sequence[Picture], goal: str, history: Sequence[Turn]) -> Subtask:
        """The other planner's answer, or standing still."""
        self._on = self._on or self._ready()
        if not self._on:
            self._waited += 1
            return Subtask(self._still, None, f"waits until {self._what}")
        return self._planner.plan(images, goal, history)

    def facts(self) -> Mapping[str, Any]:
        """The other planner's, and how often it was asked too early."""
        return {**self._planner.facts(), "asked_while_waiting": self._waited}

    def close(self) -> None:
        """Closes the other one."""
        self._planner.close()
