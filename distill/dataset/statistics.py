"""Statistics of an episode's columns and of many episodes together, as LeRobot's stats.json has them.

min, max, mean, std (of the population), count, and the quantiles q01 to q99. Of many episodes LeRobot takes the mean of
the episodes' quantiles, weighted by their frames, and so do we: they are not the quantiles of all frames. Within an
episode ours are exact, where LeRobot's come from a histogram of 5,000 bins (its compute_stats.py, 0.4.4).

Axes: T frames, n numbers of a feature. Pure functions of arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

Statistics = dict[str, dict[str, np.ndarray]]
"""Feature -> statistic -> (n,); "count" is (1,)."""

QUANTILES: dict[str, float] = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
NAMES = ("min", "max", "mean", "std", "count", *QUANTILES)


def episode_statistics(columns: Mapping[str, np.ndarray]) -> Statistics:
    """Statistics of one episode's columns, (T, n) or (T,) each. Smallest and largest values keep the column's type."""
    found: Statistics = {}
    for name, column in columns.items():
        values = column.reshape(len(column), -1)
        exact = values.astype(np.float64)
        quantiles = np.quantile(exact, list(QUANTILES.values()), axis=0)
        found[name] = {
            "min": values.min(axis=0),
            "max": values.max(axis=0),
            "mean": exact.mean(axis=0),
            "std": exact.std(axis=0),
            "count": np.array([len(values)]),
            **dict(zip(QUANTILES, quantiles, strict=True)),
        }
    return found


def aggregate(parts: Iterable[Statistics]) -> Statistics:
    """Statistics of several sets of frames together; each has the same features.

    Means and variances by the parallel algorithm of Chan, Golub and LeVeque (1979); quantiles are weighted means.
    """
    parts = list(parts)
    return {name: _together([part[name] for part in parts]) for name in parts[0]}


def _together(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    stacked = {name: np.stack([part[name] for part in parts]) for name in NAMES}
    counts = stacked["count"].astype(np.float64)  # (P, 1)
    total = counts.sum()
    mean = (stacked["mean"] * counts).sum(axis=0) / total
    variance = ((stacked["std"] ** 2 + (stacked["mean"] - mean) ** 2) * counts).sum(axis=0) / total
    return {
        "min": stacked["min"].min(axis=0),
        "max": stacked["max"].max(axis=0),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": stacked["count"].sum(axis=0),
        **{name: (stacked[name] * counts).sum(axis=0) / total for name in QUANTILES},
    }
