"""What a policy does, in the words that a reward is written in: how every signal is distributed over its episodes.

Statistics of a reward's own components say how much each paid; they do not say what the policy did to be paid so. It
knows neither fitness nor reward. Axes: E episodes (= worlds), D columns of a signal.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tasks.signals import Signals, SignalTable

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
"""The quantiles that are kept; what a policy seldom does is left out at both ends."""
SNAPSHOTS = 50
"""At most so many steps of each episode are looked at, evenly spaced."""
EACH_COLUMN = 4
"""A signal of at most so many columns has quantiles for each; a wider one has them over all of its columns."""


class Behaviour:
    """Gathers the signals of whole episodes.

    Args:
        table: The task's signals.
        max_steps: Steps of the longest episode.
    """

    def __init__(self, table: SignalTable, max_steps: int) -> None:
        self._names = table.names
        self._stride = -(-max_steps // SNAPSHOTS)
        self._step = 0
        self._kept: dict[str, list[Tensor]] = {name: [] for name in self._names}

    def add(self, signals: Signals, running: Tensor) -> None:
        """Take in one step: the signals, (E, D) each, of the worlds that are `running` (E,) in their first episode."""
        if self._step % self._stride == 0:
            for name in self._names:
                self._kept[name].append(signals[name][running].cpu())
        self._step += 1

    def quantiles(self) -> dict[str, list[list[float]]]:
        """Signal name -> the `LEVELS` quantiles of each column, or of all columns of a wide signal in one row. A signal
        that was not finite has nan. Empty where nothing was added."""
        return {name: _rows(torch.cat(kept)) for name, kept in self._kept.items() if kept}


def _rows(values: Tensor) -> list[list[float]]:
    columns = values if values.shape[1] <= EACH_COLUMN else values.reshape(-1, 1)
    levels = torch.tensor(LEVELS, dtype=torch.float64)
    # By hand: torch.quantile refuses more than 16 million values.
    in_order = columns.sort(dim=0).values
    at = levels * (len(columns) - 1)
    low = in_order[at.floor().long()]
    high = in_order[at.ceil().long()]
    found = low + (high - low) * (at - at.floor()).to(columns)[:, None]
    found = torch.where(columns.isfinite().all(dim=0), found, torch.nan)
    return found.T.tolist()
