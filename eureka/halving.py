"""Successive halving: all candidates of a generation start, the worse half is stopped, the rest go on from where they
are (Jamieson and Talwalkar, arXiv:1502.07943, with eta = 2).

A rung is a budget in iterations. At its end the candidates are ranked by held-out fitness; the worse half is stopped,
and of the better one those whose fitness no longer rises and is low. What is measured at a rung is compared within that
rung alone: a fitness after a quarter of the training says nothing beside one after all of it.

Pure functions; `eureka.search` trains and stores. With K candidates and rungs at 1/4 and 1/2 the trainings cost at most
K/4 + K/8 + K/8 = K/2 whole ones.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eureka.candidate import Candidate, Status
from eureka.reflection import figure, to_float
from eureka.settling import settle
from rl.record import read_metrics

FRACTIONS = (0.25, 0.5)
"""Shares of the whole training at whose ends candidates are stopped."""
AUTOMATIC_ABOVE = 4
"""Candidates a generation above which a search halves unless it is told."""
_FLAT_LEAST = 4  # iterations in a third of a curve, below which nothing is said of its slope


@dataclass(frozen=True)
class Rung:
    """A part of the training, ended by an evaluation."""

    number: int
    """From 1."""
    iterations: int
    """What a candidate has trained at its end, from the very start."""
    start_iteration: int
    """Where it goes on from: the end of the rung before; 0 for the first."""

    @property
    def name(self) -> str:
        """Part of the run ids and folders of this rung."""
        return f"rung{self.number}"


def rungs(iterations: int, halving: bool) -> tuple[Rung, ...]:
    """The parts of a training of so many iterations; the last one ends the whole. One part without halving."""
    ends = sorted({math.ceil(share * iterations) for share in FRACTIONS} - {iterations}) if halving else []
    ends.append(iterations)
    return tuple(Rung(i + 1, end, ends[i - 1] if i else 0) for i, end in enumerate(ends))


def decide(
    candidates: Sequence[Candidate], results: Mapping[str, list[dict[str, Any]]], rung: Rung, whole: int
) -> list[Candidate]:
    """The candidates after a rung: those that go on, as they were but for the rung they have passed; the stopped ones
    and those whose training failed, settled.

    Args:
        candidates: All that trained on this rung.
        results: Candidate -> one result a seed, each the content of `result.json` with the run's folder under
            "run_dir".
        rung: The rung that has ended.
        whole: Iterations of a whole training.
    """
    told = {c.candidate_id: settle(c, results[c.candidate_id]) for c in candidates}
    order = sorted((c for c in told.values() if c.scored), key=lambda c: (-(c.fitness or 0.0), c.index))
    keep = max(1, len(candidates) // 2)
    reasons = {c.candidate_id: "in the worse half" for c in order[keep:]}
    if order:
        middle = ((order[0].fitness or 0.0) + (order[-1].fitness or 0.0)) / 2
        for c in order[1:keep]:  # the best goes on whatever its curve says
            if (c.fitness or 0.0) < middle and all(flat(r["run_dir"]) for r in results[c.candidate_id]):
                reasons[c.candidate_id] = "low, and it no longer rose"
    going_on = [c for c in order if c.candidate_id not in reasons]
    places = {c.candidate_id: i + 1 for i, c in enumerate(order)}
    after = []
    for candidate in candidates:
        settled = told[candidate.candidate_id]
        if settled in going_on:
            after.append(dataclasses.replace(candidate, rung=rung.number))
        elif settled.status is Status.FAILED:
            after.append(dataclasses.replace(settled, rung=rung.number))
        else:
            place = places.get(candidate.candidate_id)
            why = (
                f"was number {place} of {len(candidates)}, {reasons[candidate.candidate_id]}"
                if place
                else "is no number"
            )
            when = f"stopped after {rung.iterations} of {whole} iterations"
            text = f"{when}: held-out fitness {figure(settled.fitness)} there {why}; {len(going_on)} went on"
            after.append(_stopped(settled, rung, text))
    return after


def _stopped(settled: Candidate, rung: Rung, reason: str) -> Candidate:
    note = f"It was {reason}. The figures are those of a training that was cut short."
    return dataclasses.replace(
        settled,
        status=Status.ELIMINATED,
        stage=rung.name,
        error=reason,
        fitness=None,
        fitness_std=None,
        rung=rung.number,
        rung_fitness=settled.fitness,
        reflection=f"{note}\n{settled.reflection or ''}".rstrip(),
    )


def flat(run_dir: Any) -> bool:
    """Whether the fitness of a run's training episodes no longer rises: the mean over the last third of its iterations
    is above that of the third before by less than the standard error of the difference.

    False where too few iterations have a fitness to tell.
    """
    told = [to_float(row.get("fitness")) for row in read_metrics(run_dir / "metrics.jsonl")]
    curve = [value for value in told if value is not None and math.isfinite(value)]
    third = len(curve) // 3
    if third < _FLAT_LEAST:
        return False
    last, before = curve[-third:], curve[-2 * third : -third]
    error = math.sqrt((statistics.variance(last) + statistics.variance(before)) / third)
    return statistics.fmean(last) - statistics.fmean(before) <= error


def outcome(after: Sequence[Candidate], rung: Rung, whole: int) -> str:
    """One line on what a rung did, for the log."""
    going_on = [c.candidate_id for c in after if c.status is Status.TRAINING]
    stopped = sum(c.status is Status.ELIMINATED for c in after)
    failed = sum(c.status is Status.FAILED for c in after)
    parts = [f"{', '.join(going_on) or 'none'} of {len(after)} go on", f"{stopped} stopped"]
    return f"{rung.iterations} of {whole} iterations: " + "; ".join([*parts, *([f"{failed} failed"] if failed else [])])


def spent(trainings: Iterable[tuple[str, int, float]]) -> float:
    """What candidates have cost, in control steps or in seconds.

    Args:
        trainings: (candidate id, seed, cost) of every rung and every whole training; a rung's is counted from the start
            of its training, so the largest of a candidate and seed is what they cost.
    """
    most: dict[tuple[str, int], float] = {}
    for candidate, seed, cost in trainings:
        most[candidate, seed] = max(cost, most.get((candidate, seed), 0.0))
    return sum(most.values())


def announced(parts: Sequence[Rung]) -> str:
    """What a designer is told of the halving; "" without."""
    if len(parts) < 2:
        return ""
    ends = " and after ".join(str(part.iterations) for part in parts[:-1])
    return f" All programs start; after {ends} rollouts the half with the worse held-out fitness is stopped."
