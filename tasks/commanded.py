"""What tasks share that are told what to do: a list of commands, each with numbers for an expert and words for others.

An episode starts with a command, and another one is drawn each time its time is up. A person's or a planner's command
(`set_command`) holds until they say another one. The expert observes the command's numbers; a policy that is told by
words observes all the rest (`observe_told`) and hears `instructions`. Does not know which body, nor what the numbers
mean: a subclass says how they are measured.

A subclass may stand before another task: `class AntCommand(CommandedTask, AntRun)` keeps the body, start and failures
of that task.

Axes: N worlds, V numbers of a command, C commands.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from tasks.commands import CommandSet
from tasks.errors import UserError
from tasks.signals import Signals
from tasks.sim import Simulation
from tasks.task import Task

WORDINGS = 2**31 - 1
"""Numbers of wordings are drawn below this; modulo the phrases of a command they are as good as uniform."""
HELD = torch.iinfo(torch.int64).max
"""Steps that a command holds which was set from outside: no episode is so long."""


class CommandedTask(Task):
    """Base class: a subclass gives `commands`, their numbers among the signals, and how what is done is measured."""

    commands: ClassVar[CommandSet]
    command_time_s: ClassVar[float] = 5.0
    """A drawn command holds so long."""
    fitness_unit = "fraction"
    fitness_doc = (
        "mean of exp(-squared scaled error of what is commanded); 1 is perfect; every step after a fall counts 0"
    )
    fitness_reduce = "mean"
    fitness_failed = 0.0

    def setup(self, sim: Simulation) -> None:
        """The command's numbers, its place in `commands`, its wording, and for how many steps it holds yet."""
        super().setup(sim)
        whole = torch.zeros(sim.num_envs, dtype=torch.int64, device=sim.device)
        sim.memory["command"] = torch.zeros(sim.num_envs, len(self.commands[0].values), device=sim.device)
        sim.memory["command_index"] = sim.memory["command_wording"] = sim.memory["command_steps_left"] = whole
        sim.constants["command_values"] = self.commands.values.to(sim.device)

    def reset(self, sim: Simulation, env_ids: Tensor, rng: torch.Generator) -> None:
        """As the task before this one in the order of base classes; any command, unless one is held from outside."""
        super().reset(sim, env_ids, rng)
        free = env_ids[sim.memory["command_steps_left"][env_ids] != HELD]
        index = torch.randint(len(self.commands), (len(free),), generator=rng, device=rng.device)
        self._command(sim, free, index, self._command_steps(), rng)

    def update(self, sim: Simulation, signals: Signals, rng: torch.Generator) -> Tensor:
        """Another command where the old one's time is up."""
        stale = super().update(sim, signals, rng)
        left = sim.memory["command_steps_left"]
        sim.memory["command_steps_left"] = torch.where(left == HELD, left, left - 1)
        due = sim.memory["command_steps_left"] <= 0
        env_ids = due.nonzero()[:, 0]
        count = len(self.commands)
        further = torch.randint(1, count, (len(env_ids),), generator=rng, device=rng.device)
        index = (sim.memory["command_index"][env_ids] + further) % count
        self._command(sim, env_ids, index, self._command_steps(), rng)
        return due if stale is None else due | stale

    def set_command(self, sim: Simulation, env_ids: Tensor, index: Tensor) -> None:
        """See `Task.set_command`."""
        if not bool(((index >= 0) & (index < len(self.commands))).all()):
            raise UserError(
                f"task '{self.name}' has {len(self.commands)} commands, got place {index.tolist()}; expected 0 to "
                f"{len(self.commands) - 1}: {', '.join(self.commands.names)}."
            )
        self._command(sim, env_ids, index.to(torch.int64), HELD)

    def observe(self, signals: Signals) -> Tensor:
        """What an expert sees (N, O + V): what `observe_told` shows, and the command's numbers."""
        return torch.cat([self.observe_told(signals), self.command_numbers(signals)], dim=-1)

    def observe_told(self, signals: Signals) -> Tensor:
        """What a policy sees that is told by words (N, O)."""
        return super().observe(signals)

    def command_numbers(self, signals: Signals) -> Tensor:
        """The command's numbers (N, V) among the signals."""
        raise NotImplementedError

    def fitness(self, signals: Signals) -> Tensor:
        """exp of minus the squared scaled error of this step (N,)."""
        error = (self.fitness_achieved(signals) - self.command_numbers(signals)) / self._fitness_scales(signals)
        return torch.exp(-error.square().sum(dim=-1))

    def fitness_did(self, achieved: Tensor) -> Tensor:
        """See `Task.fitness_did`: the command at the least scaled distance."""
        scale = torch.tensor(self.fitness_scale, device=achieved.device)
        wanted = self.commands.values.to(achieved.device)
        return torch.cdist(achieved / scale, wanted / scale).argmin(dim=-1)

    def _fitness_scales(self, signals: Signals) -> Tensor:
        return torch.tensor(self.fitness_scale, device=signals["actions"].device)

    def _command_steps(self) -> int:
        return max(1, round(self.command_time_s / self.control_dt_s))

    def _command(
        self, sim: Simulation, env_ids: Tensor, index: Tensor, steps: int, rng: torch.Generator | None = None
    ) -> None:
        """Tell worlds env_ids (n,) commands index (n,), for so many steps; in other words where rng is given."""
        memory, index = sim.memory, index.to(sim.device)
        memory["command"] = memory["command"].index_copy(0, env_ids, sim.constants["command_values"][index])
        memory["command_index"] = memory["command_index"].index_copy(0, env_ids, index)
        memory["command_steps_left"] = memory["command_steps_left"].index_fill(0, env_ids, steps)
        if rng is not None:
            wording = torch.randint(WORDINGS, (len(env_ids),), generator=rng, device=rng.device).to(sim.device)
            memory["command_wording"] = memory["command_wording"].index_copy(0, env_ids, wording)
