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
        self._firsts: dict[bytes, str] = {}
        """SHA-256 -> the first candidate that has it. The one thing that a search keeps of every program: some 200
        bytes."""

    def firsts(self, candidates: Iterable[Candidate]) -> dict[str, str]:
        """Candidate -> the first that computes the same, by ids; those that are the first themselves are left out.

        Args:
            candidates: Those that are new since the last call, in order of generation and index.
        """
        found = {}
        for candidate in candidates:
            digest = self._digest(candidate.candidate_id) if candidate.status in _ADMITTED else None
            if digest is not None:
                first = self._firsts.setdefault(digest, candidate.candidate_id)
                if first != candidate.candidate_id:
                    found[candidate.candidate_id] = first
        return found

    def _digest(self, name: str) -> bytes | None:
        graph = stored_graph(self._folder, name)
        try:
            return None if graph is None else bytes.fromhex(read_graph(graph).sha256())
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
