"""Statistics of the columns of a data set, and the scale they give: for states and for actions of each body.

Every mode is an affine map of each column, so it has an exact meaning for values outside the data and an inverse:

    quantile   the 1st and 99th percentile become -1 and 1: outliers do not squeeze the rest
    min_max    the smallest and largest value become -1 and 1
    mean_std   mean 0 and standard deviation 1

A column that is constant in the data keeps its unit and is shifted by its value: it becomes 0 and comes back as it was,
and a small change of it later on stays small.

Knows nothing of networks, of files or of what the columns mean.

Axes: N rows, D columns. Modes and names as in LeRobot's stats.json and openpi's norm_stats.json.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rl.config import choice, complete_fields
from tasks.errors import UserError

MODES = ("quantile", "min_max", "mean_std")
CONSTANT = 1e-6
"""A column whose spread is below this part of its size (or of 1, if larger) is constant: float32 resolves 1e-7."""


@dataclass(frozen=True)
class Statistics:
    """Each column's statistics over `count` rows, as tuples of D numbers."""

    count: int
    """Rows of the data."""
    min: tuple[float, ...]
    """Smallest values."""
    max: tuple[float, ...]
    """Largest values."""
    mean: tuple[float, ...]
    """Means."""
    std: tuple[float, ...]
    """Standard deviations of the data itself (divided by N)."""
    q01: tuple[float, ...]
    """1st percentiles, interpolated linearly."""
    q99: tuple[float, ...]
    """99th percentiles, interpolated linearly."""

    def __post_init__(self) -> None:
        if not isinstance(self.count, int) or self.count < 1:
            raise UserError(f"statistics: count is {self.count!r}, expected a whole number of at least 1.")
        for name in _COLUMNS:
            values = getattr(self, name)
            if not isinstance(values, tuple) or len(values) != len(self.min):
                raise UserError(f"statistics: {name} is {_short(values)}, expected as many numbers as min.")
            wrong = [v for v in values if isinstance(v, bool) or not isinstance(v, int | float) or not math.isfinite(v)]
            if wrong:
                raise UserError(f"statistics: {name} holds {wrong[0]!r}, expected finite numbers.")
        for column in range(self.size):
            ordered = [self.min[column], self.q01[column], self.q99[column], self.max[column]]
            if ordered != sorted(ordered) or self.std[column] < 0:
                raise UserError(
                    f"statistics: column {column} has min, q01, q99, max {ordered} and std {self.std[column]}, "
                    "expected a rising order and no negative std: compute them again."
                )

    @property
    def size(self) -> int:
        """Number of columns D."""
        return len(self.min)

    def affine(self, mode: str) -> tuple[list[float], list[float]]:
        """Offset and scale of each column: normalised = (value - offset) / scale. Raises UserError for another mode."""
        choice("normalization", mode, MODES)
        if mode == "mean_std":
            offsets, scales = list(self.mean), list(self.std)
        else:
            low, high = (self.q01, self.q99) if mode == "quantile" else (self.min, self.max)
            offsets = [(a + b) / 2 for a, b in zip(low, high, strict=True)]
            scales = [(b - a) / 2 for a, b in zip(low, high, strict=True)]
        # A column that moves in fewer than 1 % of the rows is constant to its quantiles, not to its standard deviation.
        for column, std in enumerate(self.std):
            scale = scales[column] if not self._constant(column, scales[column]) else std
            scales[column] = scale if not self._constant(column, scale) else 1.0
        return offsets, scales

    def _constant(self, column: int, spread: float) -> bool:
        return spread <= CONSTANT * max(1.0, abs(self.mean[column]))


_COLUMNS = ("min", "max", "mean", "std", "q01", "q99")


def compute_statistics(data: Any) -> Statistics:
    """Statistics of rows (N, D): a tensor or array of numbers.

    Raises:
        UserError: no rows, no table, or a value that is not finite (named by its place).
    """
    rows = np.asarray(data.detach().cpu() if isinstance(data, Tensor) else data, dtype=np.float64)
    if rows.ndim != 2 or not len(rows):
        raise UserError(f"statistics need a table of rows and columns with at least one row, got shape {rows.shape}.")
    if not np.isfinite(rows).all():
        row, column = (int(i) for i in np.argwhere(~np.isfinite(rows))[0])
        raise UserError(f"statistics: row {row}, column {column} is {rows[row, column]}, expected finite numbers.")
    q01, q99 = np.quantile(rows, [0.01, 0.99], axis=0)
    low, high = rows.min(axis=0), rows.max(axis=0)
    columns = {
        "min": low,
        "max": high,
        "mean": rows.mean(axis=0),
        "std": rows.std(axis=0),
        # Interpolation may leave the range by a rounding.
        "q01": np.clip(q01, low, high),
        "q99": np.clip(q99, low, high),
    }
    return Statistics(count=len(rows), **{name: tuple(values.tolist()) for name, values in columns.items()})


def statistics_to_json(statistics: Statistics) -> dict[str, Any]:
    """Plain data for `json.dumps`; floats come back bit for bit."""
    return {"count": statistics.count, **{name: list(getattr(statistics, name)) for name in _COLUMNS}}


def statistics_from_json(data: Any, where: str = "statistics") -> Statistics:
    """The inverse of `statistics_to_json`. Raises UserError for unknown, missing or impossible fields."""
    values = complete_fields(data, Statistics, where)
    for name in _COLUMNS:
        if not isinstance(values[name], list):
            raise UserError(f"{where}.{name} is {_short(values[name])}, expected a list of numbers.")
        values[name] = tuple(values[name])
    return Statistics(**values)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


class Normalizer(nn.Module):
    """The affine map of one set of columns, as a module: float32 (..., D) both ways.

    The numbers are buffers that move with the module and are not in its state dict: they belong to the embodiment.
    """

    offset: Tensor
    scale: Tensor

    def __init__(self, statistics: Statistics, mode: str) -> None:
        super().__init__()
        offsets, scales = statistics.affine(mode)
        self.register_buffer("offset", torch.tensor(offsets, dtype=torch.float32), persistent=False)
        self.register_buffer("scale", torch.tensor(scales, dtype=torch.float32), persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        """Physical values (..., D) to normalised ones."""
        return (values - self.offset) / self.scale

    def invert(self, values: Tensor) -> Tensor:
        """Normalised values (..., D) to physical ones."""
        return values * self.scale + self.offset
