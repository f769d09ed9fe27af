"""One episode on its way into a dataset, and what is asked of it. Knows nothing of files.

Axes: T frames, n numbers of a feature.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from distill.dataset.layout import DatasetSpec
from tasks.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Origin:
    """Where an episode comes from."""

    source: str
    """Who acted: the task and the checkpoint."""
    seed: int
    """Seed of the simulation."""
    world: int
    """Which of its worlds."""
    fitness: float
    """Fitness of the whole episode, in the task's unit."""


@dataclass(frozen=True)
class Episode:
    """One whole episode of T frames."""

    columns: Mapping[str, np.ndarray]
    """Feature -> (T, n), or (T,) where n is 1."""
    tasks: str | Sequence[str]
    """What to do, in words: for all frames, or T of them."""
    origin: Origin
    """Where it comes from."""
    subtasks: str | Sequence[str] | None = None
    """The step of a plan that it is in: for all frames, or T of them."""


def checked_columns(episode: Episode, spec: DatasetSpec) -> tuple[dict[str, np.ndarray], int]:
    """The episode's columns as they are stored, (T, n), or (T,) where n is 1, and T.

    Raises:
        UserError: a column is missing, unknown, of another type or size, or not finite.
    """
    for name in episode.columns:
        if name not in spec.features:
            raise UserError(f"episode: the dataset has no feature '{name}'.{did_you_mean(name, spec.features)}")
    if not math.isfinite(episode.origin.fitness):
        raise UserError(f"episode: its fitness is {episode.origin.fitness}; expected a number.")
    columns: dict[str, np.ndarray] = {}
    length = len(next(iter(episode.columns.values()), ()))
    for name, feature in spec.features.items():
        if name not in episode.columns:
            raise UserError(f"episode: feature '{name}' is missing.")
        column, size = np.asarray(episode.columns[name]), feature.shape[0]
        if size == 1 and column.shape == (length, 1):
            column = column[:, 0]
        if column.shape != ((length,) if size == 1 else (length, size)) or column.dtype != feature.dtype or not length:
            raise UserError(
                f"episode: '{name}' is {column.dtype} {column.shape}, expected {feature.dtype} "
                f"({length or 'T'}, {size})."
            )
        bad = ~np.isfinite(column.reshape(length, -1)).all(axis=1)
        if bad.any():
            raise UserError(f"episode: '{name}' is not finite in {int(bad.sum())} frames, first {int(bad.argmax())}.")
        columns[name] = column
    return columns, length


def numbered(known: Sequence[str], texts: str | Sequence[str] | None, length: int, what: str) -> dict[str, np.ndarray]:
    """Each text of an episode -> its number, and under "" the number of each frame's text (T,).

    Texts that are not `known` get the numbers after it, in the order in which they come.

    Raises:
        UserError: there are not T texts, or one is empty.
    """
    texts = [texts] * length if isinstance(texts, str) else list(texts or ())
    if len(texts) != length or not all(isinstance(text, str) and text.strip() for text in texts):
        raise UserError(f"episode: expected a {what} in words for each of its {length} frames, got {texts[:2]}.")
    numbers = {text: number for number, text in enumerate(known)}
    for text in texts:
        numbers.setdefault(text, len(numbers))
    return {text: numbers[text] for text in texts} | {"": np.array([numbers[text] for text in texts])}
