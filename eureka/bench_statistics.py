"""What a scoreboard says of methods over tasks and seeds: interquartile mean, probability of improvement, bootstrap
intervals.

As in Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice" (arXiv:2108.13264) and its
library rliable: intervals are percentiles of stratified bootstrap means, seeds drawn anew within each task. Three
formulas; the library itself brings twenty packages. Numbers in, numbers out. What it does not know: how a score was
normalised; that the baselines of the scale are means over few seeds themselves is in no interval, there as here.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

REPEATS = 2000
"""Bootstrap samples; rliable's default for its plots is as many."""
LEVEL = 0.95
_SEED = 0  # the same figures give the same intervals
_TRIMMED = 0.25  # of each tail

Scores = Sequence[Sequence[float]]
"""Tasks, each with its scores over seeds; as many as there are."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval at `LEVEL`."""

    value: float
    low: float
    high: float


def interquartile_mean(scores: Scores) -> float:
    """The mean of the middle half of all scores, tasks and seeds together; a quarter is cut off each tail, rounded down
    (`scipy.stats.trim_mean(scores, 0.25)`)."""
    everything = sorted(score for task in scores for score in task)
    cut = int(_TRIMMED * len(everything))
    return statistics.fmean(everything[cut : len(everything) - cut])


def probability_of_improvement(first: Scores, second: Scores) -> float:
    """How likely a run of the first method beats one of the second, on a task drawn at random: the mean over tasks of
    the share of pairs of seeds in which it does, ties counted half (Mann-Whitney's U over its largest value)."""
    return statistics.fmean(_wins(mine, other) for mine, other in zip(first, second, strict=True))


def _wins(mine: Sequence[float], other: Sequence[float]) -> float:
    pairs = [(a > b) + 0.5 * (a == b) for a in mine for b in other]
    return statistics.fmean(pairs)


def mean_estimate(values: Sequence[float]) -> Estimate:
    """The mean over seeds of one task."""
    return estimate(lambda scores: statistics.fmean(scores[0]), [values])


def estimate(figure: Callable[..., float], *methods: Scores) -> Estimate:
    """A figure of one or several methods' scores, with its bootstrap interval."""
    rng = np.random.default_rng(_SEED)
    drawn = [figure(*(_resampled(scores, rng) for scores in methods)) for _ in range(REPEATS)]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(figure(*methods), float(low), float(high))


def _resampled(scores: Scores, rng: np.random.Generator) -> list[list[float]]:
    return [[task[i] for i in rng.integers(len(task), size=len(task))] for task in scores]
