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
from tasks.math import constant
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
        left, index = sim.memory["command_steps_left"][env_ids], sim.memory["command_index"][env_ids]
        drawn = torch.randint(len(self.commands), (len(env_ids),), generator=rng, device=rng.device)
        self._draw(sim, env_ids, left != HELD, index, drawn.to(sim.device), rng)

    def update(self, sim: Simulation, signals: Signals, rng: torch.Generator) -> Tensor:
        """Another command where the old one's time is up."""
        stale = super().update(sim, signals, rng)
        left = sim.memory["command_steps_left"]
        sim.memory["command_steps_left"] = torch.where(left == HELD, left, left - 1)
        due = sim.memory["command_steps_left"] <= 0
        index, count = sim.memory["command_index"], len(self.commands)
        further = torch.randint(1, count, due.shape, generator=rng, device=rng.device).to(sim.device)
        self._draw(sim, torch.arange(len(due), device=sim.device), due, index, (index + further) % count, rng)
        return due if stale is None else due | stale

    def set_command(self, sim: Simulation, env_ids: Tensor, index: Tensor) -> None:
        """See `Task.set_command`."""
        if not bool(((index >= 0) & (index < len(self.commands))).all()):
            raise UserError(
                f"task '{self.name}' has {len(self.commands)} commands, got place {index.tolist()}; expected 0 to "
                f"{len(self.commands) - 1}: {', '.join(self.commands.names)}."
            )
        index = index.to(sim.device, torch.int64)
        self._command(sim, env_ids, index, torch.full_like(index, HELD))

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
        error = self.fitness_achieved(signals) - self.command_numbers(signals)
        error = error / constant(self.fitness_scale, error.device)
        return torch.exp(-error.square().sum(dim=-1))

    def fitness_did(self, achieved: Tensor) -> Tensor:
        """See `Task.fitness_did`: the command at the least scaled distance."""
        scale = constant(self.fitness_scale, achieved.device)
        wanted = self.commands.values.to(achieved.device)
        return torch.cdist(achieved / scale, wanted / scale).argmin(dim=-1)

    def _command_steps(self) -> int:
        return max(1, round(self.command_time_s / self.control_dt_s))

    def _draw(
        self, sim: Simulation, env_ids: Tensor, due: Tensor, index: Tensor, drawn: Tensor, rng: torch.Generator
    ) -> None:
        """Worlds env_ids (n,) whose command is due (n,) bool are told drawn (n,) in other words, the rest index (n,) as
        before. By a mask, so that nobody has to know which were due."""
        left, wording = sim.memory["command_steps_left"][env_ids], sim.memory["command_wording"][env_ids]
        words = torch.randint(WORDINGS, due.shape, generator=rng, device=rng.device).to(sim.device)
        steps = torch.where(due, self._command_steps(), left)
        self._command(sim, env_ids, torch.where(due, drawn, index), steps, torch.where(due, words, wording))

    def _command(
        self, sim: Simulation, env_ids: Tensor, index: Tensor, steps: Tensor, wording: Tensor | None = None
    ) -> None:
        """Tell worlds env_ids (n,) commands index (n,), for so many steps (n,); in other words if given."""
        told = {
            "command": sim.constants["command_values"][index],
            "command_index": index,
            "command_steps_left": steps,
            "command_wording": wording,
        }
        for name, rows in told.items():
            if rows is not None:
                sim.memory[name] = sim.memory[name].index_copy(0, env_ids, rows)
