"""Candidates whose rewards compute the same: equal graphs train once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from eureka.candidate import Candidate, Status
from eureka.proposing import stored_graph
from rewards.graph import GraphError, read_graph

_OF_THE_INFRASTRUCTURE = ("error", "time_limit")
"""Failures that another training of the same reward need not share."""


class Twins:
    """Finds, for a candidate, the first one with an equal reward graph.

    Args:
        folder: The search folder, where the graphs are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._digests: dict[str, str] = {}

    def first_of(self, candidate: Candidate, earlier: Iterable[Candidate]) -> Candidate | None:
        """The first of `earlier` whose graph equals the candidate's and that is no twin itself; None without one."""
        wanted = self._digest(candidate.candidate_id)
        if wanted is None:
            return None
        place = (candidate.generation, candidate.index)
        same = [
            c
            for c in earlier
            if (c.generation, c.index) < place and c.equal_to is None and self._digest(c.candidate_id) == wanted
        ]
        return min(same, key=lambda c: (c.generation, c.index), default=None)

    def _digest(self, name: str) -> str | None:
        known = self._digests.get(name)
        graph = stored_graph(self._folder, name) if known is None else None
        if graph is None:
            return known
        try:
            self._digests[name] = read_graph(graph).sha256()
        except GraphError:
            return None  # damaged: the training traces the program again, and no twin is known
        return self._digests[name]


def follows(first: Candidate) -> bool:
    """Whether what became of this candidate says what becomes of its twins."""
    if first.status is Status.FAILED:
        return first.stage not in _OF_THE_INFRASTRUCTURE
    return first.status is Status.TRAINED


def as_twin(candidate: Candidate, first: Candidate) -> Candidate:
    """The candidate with the fate of the one that computes the same."""
    return dataclasses.replace(
        candidate,
        status=first.status,
        stage=first.stage,
        error=first.error,
        fitness=first.fitness,
        fitness_std=first.fitness_std,
        result={**(first.result or {}), "equal_to": first.candidate_id},
        reflection=first.reflection,
    )
