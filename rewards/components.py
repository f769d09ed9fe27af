"""Statistics of reward components over finished episodes. A NaN is never hidden.

The value of an episode is the mean over its steps of one component; the statistics are over episodes, never
over single steps. An episode with a NaN in any step has the value NaN, and so then have mean, min and max;
`nonfinite` says in how many episodes. Everything is summed on the device; only `collect` waits for it.

Axes: N worlds, C components (the total last). Not known here: episodes that are still running when `collect`
is called count when they finish.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

TOTAL = "total"
"""Name under which the total reward is kept beside its components."""


@dataclass(frozen=True)
class ComponentStats:
    """One component over the episodes that finished since the last collection. Units: reward per step."""

    mean: float | None
    """Mean of the episodes' values; NaN if one is NaN; None if no episode finished."""
    min: float | None
    """Smallest episode value, NaN or None as for `mean`."""
    max: float | None
    """Largest episode value, NaN or None as for `mean`."""
    count: int
    """Episodes finished."""
    nonfinite: int
    """Episodes among them whose value is NaN or infinite."""


class EpisodeStatistics:
    """Sums of components per world, and statistics over the episodes that have finished.

    Args:
        num_envs: N.
        names: components, without the total.
        device: where the rewards are.
    """

    def __init__(self, num_envs: int, names: Sequence[str], device: torch.device | str) -> None:
        if TOTAL in names or len(set(names)) != len(names):
            raise ValueError(f"component names must be distinct and not '{TOTAL}': {list(names)}")
        self.names = (*names, TOTAL)
        # float64: a float32 sum over 1000 steps is wrong in the fifth digit; Apple's MPS has no float64.
        dtype = torch.float32 if torch.device(device).type == "mps" else torch.float64
        rows = len(self.names)
        self._sums = torch.zeros(rows, num_envs, dtype=dtype, device=device)  # (C, N) of running episodes
        self._steps = torch.zeros(num_envs, dtype=dtype, device=device)  # (N,)
        self._sum = torch.zeros(rows, dtype=dtype, device=device)  # (C,) over finished episodes, as all below
        self._min = torch.full_like(self._sum, math.inf)
        self._max = torch.full_like(self._sum, -math.inf)
        self._nonfinite = torch.zeros(rows, dtype=torch.int64, device=device)
        self._count = torch.zeros((), dtype=torch.int64, device=device)

    def add(self, components: Mapping[str, torch.Tensor], total: torch.Tensor, done: torch.Tensor) -> None:
        """Add one step: components name -> (N,), total (N,), done (N,) bool where this step was its episode's
        last.

        Raises ValueError if the names are not those given at the start.
        """
        if len(components) != len(self.names) - 1 or any(name not in components for name in self.names[:-1]):
            raise ValueError(f"components {list(components)} came; expected {list(self.names[:-1])}")
        self._sums += torch.stack([*(components[name] for name in self.names[:-1]), total])
        self._steps += 1
        values = self._sums / self._steps  # (C, N)
        # where() and not a product with the mask: 0 * NaN would carry one world's NaN into the others.
        self._sum += torch.where(done, values, 0.0).sum(dim=1)
        self._min = torch.minimum(self._min, torch.where(done, values, math.inf).amin(dim=1))
        self._max = torch.maximum(self._max, torch.where(done, values, -math.inf).amax(dim=1))
        self._nonfinite += (done & ~torch.isfinite(values)).sum(dim=1)
        self._count += done.sum()
        self._sums = torch.where(done, 0.0, self._sums)
        self._steps = torch.where(done, 0.0, self._steps)

    def collect(self) -> dict[str, ComponentStats]:
        """Statistics by name, the total last, over the episodes finished since the last call; then start
        anew."""
        count = int(self._count)
        columns = torch.stack([self._sum / max(count, 1), self._min, self._max]).tolist()
        nonfinite = self._nonfinite.tolist()
        self._sum.zero_()
        self._min.fill_(math.inf)
        self._max.fill_(-math.inf)
        self._nonfinite.zero_()
        self._count.zero_()
        if not count:
            return {name: ComponentStats(None, None, None, 0, 0) for name in self.names}
        return {
            name: ComponentStats(columns[0][row], columns[1][row], columns[2][row], count, nonfinite[row])
            for row, name in enumerate(self.names)
        }
