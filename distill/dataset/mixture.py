"""Batches out of many datasets of different bodies, by weight, grouped by embodiment.

Every batch has the same number B of samples. A dataset's share of them is its weight over the sum of weights: the whole
part in each batch, the rest by turns, so that after any number of batches no dataset is a sample away from its share
more than there are datasets. Within a dataset every frame comes once an epoch, in an order that seed, dataset and epoch
determine; so how many samples each dataset has given is all that a loader has to remember.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distill.dataset.reader import EpisodeDataset
from distill.dataset.windows import Windows, concatenate, cut_windows
from tasks.errors import UserError


@dataclass(frozen=True)
class MixtureSource:
    """One dataset of a mixture."""

    dataset: EpisodeDataset
    """Its frames."""
    embodiment: str
    """The body it is of; datasets of one body share its batches."""
    history: int
    """Observations of an example, T of the embodiment."""
    horizon: int
    """Actions of an example, H of the embodiment."""
    weight: float = 1.0
    """Its share of the samples, relative to the other weights."""


class MixtureLoader:
    """Draws batches without end. Equal sources, seeds and batch sizes give equal batches."""

    def __init__(self, sources: Sequence[MixtureSource], *, batch_size: int, seed: int) -> None:
        """Check the sources.

        Raises:
            UserError: there are none, a number is out of range, or datasets of one embodiment differ in size.
        """
        if not sources or batch_size < 1 or seed < 0:
            raise UserError(
                f"mixture: {len(sources)} datasets, batch_size {batch_size}, seed {seed}; expected at least 1, 1 and 0."
            )
        first: dict[str, MixtureSource] = {}
        for source in sources:
            if not (source.weight > 0 and math.isfinite(source.weight)) or source.history < 1 or source.horizon < 1:
                raise UserError(
                    f"mixture: {source.dataset.root} has weight {source.weight}, history {source.history} and horizon "
                    f"{source.horizon}; expected a weight above 0 and at least 1."
                )
            other = first.setdefault(source.embodiment, source)
            source.dataset.require_sizes(source.embodiment, other.dataset.state_size, other.dataset.action_size)
            if (source.history, source.horizon) != (other.history, other.horizon):
                raise UserError(
                    f"mixture: datasets of embodiment '{source.embodiment}' have history and horizon "
                    f"{other.history}, {other.horizon} and {source.history}, {source.horizon}; expected the same."
                )
        self.sources, self.batch_size, self.seed = tuple(sources), batch_size, seed
        weights = np.array([source.weight for source in sources], dtype=np.float64)
        self._shares = weights / weights.sum()
        self._drawn = np.zeros(len(sources), dtype=np.int64)
        self._orders: dict[int, tuple[int, np.ndarray]] = {}

    def next_batch(self) -> dict[str, Windows]:
        """The next B examples: embodiment -> its part of them, in the order of the sources."""
        parts: dict[str, list[Windows]] = {}
        for number, count in enumerate(self._counts()):
            if count:
                source, frames = self.sources[number], self._frames(number, int(count))
                cut = cut_windows(source.dataset, frames, source.history, source.horizon)
                parts.setdefault(source.embodiment, []).append(cut)
        return {embodiment: concatenate(windows) for embodiment, windows in parts.items()}

    def __iter__(self) -> Iterator[dict[str, Windows]]:
        while True:
            yield self.next_batch()

    def epochs(self) -> tuple[float, ...]:
        """How often each dataset has been seen."""
        return tuple(int(d) / s.dataset.num_frames for d, s in zip(self._drawn, self.sources, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """What to save for `load_state_dict`: plain data."""
        return {"drawn": self._drawn.tolist(), "mixture": self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another loader was. Raises UserError if its mixture, seed or batch size was another one."""
        if state.get("mixture") != self._identity():
            raise UserError(
                "mixture: the saved place is of other datasets, weights, seed or batch size "
                f"({state.get('mixture')!r:.300}); start the training anew, or give it what it had."
            )
        self._drawn = np.array(state["drawn"], dtype=np.int64)

    def _identity(self) -> dict[str, Any]:
        rows = [
            [s.embodiment, s.dataset.num_episodes, s.dataset.num_frames, s.history, s.horizon, s.weight]
            for s in self.sources
        ]
        return {"datasets": rows, "batch_size": self.batch_size, "seed": self.seed}

    def _counts(self) -> np.ndarray:
        """Samples of each dataset in the next batch."""
        counts = np.floor(self.batch_size * self._shares).astype(np.int64)
        owed = self._shares * (self._drawn.sum() + self.batch_size) - self._drawn - counts
        for _ in range(self.batch_size - int(counts.sum())):
            most = int(owed.argmax())
            counts[most] += 1
            owed[most] -= 1.0
        return counts

    def _frames(self, number: int, count: int) -> np.ndarray:
        """The next `count` frames of a dataset."""
        size = self.sources[number].dataset.num_frames
        parts = []
        while count:
            epoch, place = divmod(int(self._drawn[number]), size)
            part = self._order(number, epoch, size)[place : place + count]
            self._drawn[number] += len(part)
            count -= len(part)
            parts.append(part)
        return np.concatenate(parts)

    def _order(self, number: int, epoch: int, size: int) -> np.ndarray:
        if self._orders.get(number, (-1,))[0] != epoch:
            order = np.random.default_rng([self.seed, number, epoch]).permutation(size)
            self._orders[number] = (epoch, order)
        return self._orders[number][1]
