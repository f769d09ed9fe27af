"""What successive halving would have chosen in a search that trained every candidate to its end.

    python benchmarks/halving_curves.py SEARCH [--draws 4000] [--samples 8]

Draws --samples of the search's candidates again and again, stops the worse half at each rung as a search does, and
compares the fitness of what is left with the best of the drawn. Prints, for several sets of rungs, the mean loss, how
often the choice is the same or within one standard deviation of the candidates, the share of the steps, and the mean
loss of as many candidates picked at random as are trained to the end.

What it does not know: held-out fitness at a rung. It ranks by the fitness of the training episodes of the last
iterations before it, which carry the policy's noise. Trainings of the first seed only.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from collections.abc import Sequence
from pathlib import Path

from eureka.archive import Archive
from eureka.halving import FRACTIONS
from rl.record import read_metrics

LAST = 6
"""Iterations before a rung whose mean ranks there."""
RUNGS: tuple[tuple[float, ...], ...] = (FRACTIONS, (0.5,), (0.5, 0.75), (2 / 3,))
"""Shares of the training at whose ends the worse half stops; a search's own first."""

Curve = list[float | None]


def candidates(folder: Path) -> list[tuple[Curve, float]]:
    """(fitness of the training episodes of each iteration, held-out fitness at the end) of each whole training."""
    archive = Archive(folder / "search.db", create=False, read_only=True)
    runs = [run for run in archive.runs("candidate") if run.status == "ok" and run.fitness is not None]
    archive.close()
    first = min((run.seed for run in runs), default=0)
    curves = [([row["fitness"] for row in read_metrics(folder / run.folder / "metrics.jsonl")], run.fitness or 0.0)
              for run in runs if run.seed == first]  # fmt: skip
    longest = max((len(curve) for curve, _ in curves), default=0)
    return [(curve, fitness) for curve, fitness in curves if len(curve) == longest]


def at_rung(curve: Curve, share: float) -> float:
    """What ranks a candidate there."""
    end = math.ceil(share * len(curve))
    told = [value for value in curve[max(0, end - LAST) : end] if value is not None]
    return statistics.fmean(told) if told else -math.inf


def halve(drawn: Sequence[tuple[Curve, float]], rungs: Sequence[float]) -> tuple[float, float, int]:
    """Fitness of the choice, share of the steps, and how many were trained to the end."""
    left, before, cost = list(drawn), 0.0, 0.0
    for share in rungs:
        cost += len(left) * (share - before)
        left = sorted(left, key=lambda candidate: -at_rung(candidate[0], share))[: max(1, len(left) // 2)]
        before = share
    cost += len(left) * (1.0 - before)
    return max(fitness for _, fitness in left), cost / len(drawn), len(left)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("search", type=Path)
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--samples", type=int, default=8)
    told = parser.parse_args()
    every = candidates(told.search)
    if len(every) < told.samples:
        raise SystemExit(f"{told.search} has {len(every)} whole trainings of one seed; expected {told.samples}.")
    spread = statistics.stdev(fitness for _, fitness in every)
    print(f"{len(every)} candidates, standard deviation of their fitness {spread:.3f}")
    print("rungs              loss   same  within one sd  steps  loss of a random pick")
    for rungs in RUNGS:
        rng, losses, random_losses, cost = random.Random(0), [], [], 0.0
        for _ in range(told.draws):
            drawn = rng.sample(every, told.samples)
            best = max(fitness for _, fitness in drawn)
            chosen, cost, count = halve(drawn, rungs)
            losses.append(best - chosen)
            random_losses.append(best - max(fitness for _, fitness in rng.sample(drawn, count)))
        same = sum(loss == 0.0 for loss in losses) / told.draws
        within = sum(loss <= spread for loss in losses) / told.draws
        name = ", ".join(f"{share:.2f}" for share in rungs)
        print(f"{name:<16} {statistics.fmean(losses):>6.3f} {same:>6.2f} {within:>14.2f} {cost:>6.2f} "
              f"{statistics.fmean(random_losses):>22.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
