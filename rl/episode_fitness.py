"""A task's fitness per step -> one number per episode. Pure tensors; training and evaluation both use it.

Axes: N worlds. What an episode's number is, by the task's `fitness_reduce`:

    mean   (sum of its steps' fitness + fitness_failed x steps it missed of the whole time limit) / time limit
    sum    sum of its steps' fitness
    max    largest fitness of a step
    last   fitness of its last step

A step in which the world diverged has no fitness (its state is no state of the episode) and counts as missed.
An episode without any valid step is worth `fitness_failed`. A NaN of the task's fitness stays a NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor

REDUCTIONS = ("mean", "sum", "max", "last")


class EpisodeFitness:
    """Accumulates per-step fitness over the running episode of each of N worlds."""

    def __init__(
        self, num_envs: int, max_steps: int, reduce: str, failed: float, device: str | torch.device = "cpu"
    ) -> None:
        """Start all episodes. `max_steps` is the time limit in steps; `failed` the value of a missed step
        ("mean").

        Raises ValueError for an unknown `reduce`.
        """
        if reduce not in REDUCTIONS:
            raise ValueError(f"fitness_reduce is '{reduce}', expected one of {', '.join(REDUCTIONS)}")
        self.max_steps = max_steps
        self.reduce = reduce
        self.failed = failed
        self.value = torch.zeros(num_envs, device=device)
        self.valid_steps = torch.zeros(num_envs, device=device)

    def add(self, fitness: Tensor, done: Tensor, missing: Tensor) -> Tensor:
        """Take in one step and return the episodes' fitness so far (N,); it is final where `done`.

        fitness (N,) of the state after the step; done (N,) bool: the episode ended with this step; missing
        (N,) bool: the step has no valid state (diverged). Episodes that ended start anew.
        """
        first = self.valid_steps == 0
        if self.reduce in ("mean", "sum"):
            self.value = self.value + torch.where(missing, 0.0, fitness)
        elif self.reduce == "max":
            # torch.maximum passes a NaN on.
            new = torch.where(first, fitness, torch.maximum(self.value, fitness))
            self.value = torch.where(missing, self.value, new)
        else:
            self.value = torch.where(missing, self.value, fitness)
        self.valid_steps = self.valid_steps + ~missing
        if self.reduce == "mean":
            result = (self.value + self.failed * (self.max_steps - self.valid_steps)) / self.max_steps
        elif self.reduce == "sum":
            result = self.value
        else:
            result = torch.where(self.valid_steps == 0, self.failed, self.value)
        self.value = self.value.masked_fill(done, 0.0)
        self.valid_steps = self.valid_steps.masked_fill(done, 0.0)
        return result
