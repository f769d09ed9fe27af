"""Some worlds of a simulation: as a simulation of their own to read from, or as the only ones that may be changed.

After a step only the worlds that started anew (or got a new goal) need their signals again; a task's `signals`
reads those from here. Every number is the one that the whole simulation would give, but for the last bit of the few
functions that torch rounds by a number's place in its tensor (atan2). Nothing can be set or stepped through it.

Axes: n worlds out of N.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tasks.sim import Simulation, SimulationState


class WorldSubset:
    """Worlds env_ids (n,) of `sim`; a `tasks.sim.SimulationState`."""

    def __init__(self, sim: SimulationState, env_ids: Tensor) -> None:
        self._sim = sim
        self._ids = env_ids
        self.num_envs = len(env_ids)
        self.device = sim.device
        self.asynchronous = sim.asynchronous
        self.model = sim.model
        self.physics_dt_s = sim.physics_dt_s
        self.substeps = sim.substeps
        self.memory: Mapping[str, Tensor] = _Rows(sim.memory, env_ids)
        self.constants = sim.constants

    @property
    def qpos(self) -> Tensor:
        """Generalised positions (n, nq)."""
        return self._sim.qpos[self._ids]

    @property
    def qvel(self) -> Tensor:
        """Generalised velocities (n, nv)."""
        return self._sim.qvel[self._ids]

    @property
    def diverged(self) -> Tensor:
        """Worlds whose last step blew up, (n,) bool."""
        return self._sim.diverged[self._ids]

    def sensor(self, name: str) -> Tensor:
        """A named MJCF sensor (n, dim). Raises UserError on an unknown name."""
        return self._sim.sensor(name)[self._ids]


class _Rows(Mapping[str, Tensor]):
    """A simulation's memory, of some worlds only; rows are taken when they are asked for."""

    def __init__(self, memory: Mapping[str, Tensor], env_ids: Tensor) -> None:
        self._memory = memory
        self._ids = env_ids

    def __getitem__(self, name: str) -> Tensor:
        return self._memory[name][self._ids]

    def __iter__(self) -> Iterator[str]:
        return iter(self._memory)

    def __len__(self) -> int:
        return len(self._memory)


class ChosenWorlds:
    """All worlds of `sim`, of which a reset changes only the chosen (N,) bool: a `tasks.sim.Simulation`.

    A task draws a start for every world, and what it gives to the others is left out. So nobody has to know which were
    chosen, which a device would have to be waited for. What was replaced in `memory` is put right by `settle`.
    """

    def __init__(self, sim: Simulation, chosen: Tensor) -> None:
        self._sim = sim
        self._chosen = chosen
        self._before = dict(sim.memory)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            return getattr(self._sim, name)

    def set_state(self, env_ids: Tensor, qpos: Tensor, qvel: Tensor, where: Tensor | None = None) -> None:
        """Put the chosen of worlds env_ids (n,) into a new state."""
        chosen = self._chosen[env_ids]
        self._sim.set_state(env_ids, qpos, qvel, chosen if where is None else chosen & where)

    def settle(self) -> None:
        """Give the other worlds back what they remembered."""
        for name, now in self._sim.memory.items():
            before = self._before.get(name)
            if before is not None and before is not now:
                chosen = self._chosen.view(-1, *[1] * (now.ndim - 1))
                self._sim.memory[name] = torch.where(chosen, now, before)
