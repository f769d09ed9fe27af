"""Candidates whose rewards compute the same: equal graphs train once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from eureka.candidate import Candidate, Status
from eureka.proposing import stored_graph
from rewards.graph import GraphError, read_graph

_ADMITTED = (Status.ACCEPTED, Status.TRAINING, Status.TRAINED, Status.FAILED, Status.ELIMINATED)
_OF_THE_INFRASTRUCTURE = ("error", "time_limit")
"""Failures that another training of the same reward need not share."""


class Twins:
    """Finds, for a candidate, the first one with an equal reward graph.

    Args:
        folder: The search folder, where the graphs are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._digests: dict[str, str | None] = {}
        """Of each candidate; each graph is read once."""
        self._firsts: dict[str, tuple[int, int, str]] = {}
        """Digest -> generation, index and id of the first candidate that has it."""

    def firsts(self, candidates: Iterable[Candidate]) -> dict[str, str]:
        """Candidate -> the first that computes the same, by ids; those that are the first themselves are left out.

        Args:
            candidates: All of a search so far, or those that are new since the last call.
        """
        candidates = [c for c in candidates if c.status in _ADMITTED]
        for candidate in candidates:
            if candidate.candidate_id not in self._digests:
                digest = self._digests[candidate.candidate_id] = self._digest(candidate.candidate_id)
                if digest is not None:
                    place = (candidate.generation, candidate.index, candidate.candidate_id)
                    self._firsts[digest] = min(self._firsts.get(digest, place), place)
        found = {}
        for candidate in candidates:
            digest = self._digests[candidate.candidate_id]
            if digest is not None and self._firsts[digest][2] != candidate.candidate_id:
                found[candidate.candidate_id] = self._firsts[digest][2]
        return found

    def _digest(self, name: str) -> str | None:
        graph = stored_graph(self._folder, name)
        try:
            return None if graph is None else read_graph(graph).sha256()
        except GraphError:
            return None  # damaged: the training traces the program again, and no twin is known


def follows(first: Candidate) -> bool:
    """Whether what became of this candidate says what becomes of its twins."""
    if first.status is Status.FAILED:
        return first.stage not in _OF_THE_INFRASTRUCTURE
    return first.status in (Status.TRAINED, Status.ELIMINATED)


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
        rung=first.rung,
        rung_fitness=first.rung_fitness,
    )
