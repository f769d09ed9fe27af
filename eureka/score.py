"""Human-normalised score, as the Eureka paper defines it (arXiv:2310.12931, section 4.1).

score of a method M = (M - sparse) / |human - sparse|: 0 is the sparse reward's fitness, 1 the human reward's. All three
come from the same budget and seeds.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """A mean with its spread over seeds."""

    mean: float
    std: float | None
    """Sample standard deviation; None for a single seed."""
    seeds: int


def over_seeds(values: Sequence[float]) -> Score | None:
    """Mean and spread of a fitness over seeds; None without values."""
    if not values:
        return None
    return Score(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def human_normalised(method: Sequence[float], human: Sequence[float], sparse: Sequence[float]) -> Score | None:
    """Score of a method from its fitness per seed; the baselines enter by their means.

    Returns:
        None where a list is empty or human and sparse are equal, so that the scale has no length.
    """
    if not (method and human and sparse):
        return None
    zero = statistics.fmean(sparse)
    length = abs(statistics.fmean(human) - zero)
    return over_seeds([(value - zero) / length for value in method]) if length > 0 else None
