"""A candidate: one reward program of a search and everything that became of it.

A candidate that did not get as far as a held-out evaluation has a status and an error, and no fitness:
`None`, never a number that stands for failure. Candidates are immutable; `dataclasses.replace` makes the next
state."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

_ERROR_KEPT = 1000  # characters; later prompts tell less of it


class Status(StrEnum):
    """How far a candidate has come. The text value is what the archive stores."""

    PROPOSED = "proposed"
    """A designer has been asked for it."""
    REFUSED = "refused"
    """The gate said no to it and to all its repairs."""
    NO_REPLY = "no_reply"
    """The designer returned nothing that could be judged."""
    ACCEPTED = "accepted"
    """The gate took it; it waits for its training."""
    TRAINING = "training"
    """A training of it was started and has not ended."""
    TRAINED = "trained"
    """It was trained and evaluated on held-out episodes."""
    FAILED = "failed"
    """Its training ended without a fitness."""
    ELIMINATED = "eliminated"
    """Successive halving stopped its training early, after an evaluation."""

    def __str__(self) -> str:
        return self.value

    @property
    def settled(self) -> bool:
        """Whether nothing more will happen to a candidate in this state."""
        return self in (Status.REFUSED, Status.NO_REPLY, Status.TRAINED, Status.FAILED, Status.ELIMINATED)


@dataclass(frozen=True)
class Candidate:
    """One reward program, by its id (`g03_c07`: generation 3, sample 7).

    Attributes:
        candidate_id: "gGG_cCC"; generations count from 1, samples from 0.
        generation, index: the two numbers of the id.
        parent_id: the candidate whose program the prompt carried, if any.
        status: how far it came.
        source: the accepted program, or the last refused one.
        reward_sha256: hash of the normalised program text.
        error: full text of why it was refused, unanswered, failed or stopped.
        stage: where the gate stopped it ("extract", "check", "trial") or "accepted", then its result.
        fitness: held-out fitness in the task's unit, the mean over its trainings; None unless `status` is TRAINED.
        fitness_std: its spread over trainings, or over the held-out episodes of a single one.
        result: `result.json` of its first training (of the first that failed), with "components" of its last iteration
            and "fitness_by_seed", one entry a training; "equal_to" names the candidate whose result it is.
        reflection: what is told to the designer about its training.
        repairs: how many repairs were asked for.
        rung: rungs of successive halving that its training has come to the end of.
        rung_fitness: held-out fitness at the rung where it was stopped, after a part of the training; comparable within
            that rung alone. None unless `status` is ELIMINATED.
    """

    candidate_id: str
    generation: int
    index: int
    parent_id: str | None = None
    status: Status = Status.PROPOSED
    source: str | None = None
    reward_sha256: str | None = None
    error: str | None = None
    stage: str | None = None
    fitness: float | None = None
    fitness_std: float | None = None
    result: dict[str, Any] | None = None
    reflection: str | None = None
    repairs: int = 0
    rung: int = 0
    rung_fitness: float | None = None

    @property
    def scored(self) -> bool:
        """Whether it carries a finite fitness that it may be ranked by."""
        return self.status is Status.TRAINED and self.fitness is not None and math.isfinite(self.fitness)

    @property
    def seeds(self) -> int:
        """Trainings whose mean its fitness is; 0 without a fitness."""
        return 0 if self.fitness is None else len((self.result or {}).get("fitness_by_seed", (self.fitness,)))

    @property
    def equal_to(self) -> str | None:
        """The candidate whose result this one has, since their rewards compute the same; None if it trained itself."""
        return (self.result or {}).get("equal_to")

    @property
    def trained_as(self) -> str:
        """The candidate whose trainings are its own: itself, or the one that computes the same."""
        return self.equal_to or self.candidate_id

    def remembered(self) -> Candidate:
        """What later generations are told of it: its program and fitness, not the course of its training. A long search
        holds every candidate."""
        kept = {key: value for key, value in (self.result or {}).items() if key in ("fitness_by_seed", "equal_to")}
        error = None if self.error is None else self.error[:_ERROR_KEPT]
        return replace(self, result=kept or None, reflection=None, error=error)


def candidate_id(generation: int, index: int) -> str:
    """The id of sample `index` of `generation`: "g03_c07"."""
    return f"g{generation:02d}_c{index:02d}"


def ask_id(candidate: str, attempt: int) -> str:
    """The id of one request for a candidate: "g03_c07_r0" for the first, r1, r2, ... for its repairs."""
    return f"{candidate}_r{attempt}"


def ranked(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those with a finite fitness, best first; a tie goes to the earlier candidate."""
    scored = [candidate for candidate in candidates if candidate.scored]
    return sorted(scored, key=lambda c: (-(c.fitness or 0.0), c.generation, c.index))


def best(candidates: Iterable[Candidate]) -> Candidate | None:
    """The best of them by held-out fitness, or None where none was scored. A NaN never wins."""
    order = ranked(candidates)
    return order[0] if order else None
