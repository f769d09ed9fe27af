"""What `rl.statistics` and `rl.rsl_adapter.ReturnDeviation` keep of one training, kept of K at once.

The numbers are those that each candidate's own would be; the operations are as many as for one. Sums are taken within
a candidate's row, so that a NaN stays in it.

Axes: K candidates, N worlds of each, C the total and the components, as many as the candidate with the most has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rewards.components import TOTAL
from rl.episode_fitness import EpisodeFitness
from rl.rsl_adapter import EQUAL_RETURNS, NORMAL_RANGE, OUTLIER
from tasks.env import EnvStep
from tasks.task import Task


class ReturnDeviations:
    """The running deviations of the discounted returns of K candidates: see `rl.rsl_adapter.ReturnDeviation`."""

    def __init__(self, count: int, num_envs: int, gamma: float, device: str | torch.device) -> None:
        self.gamma = gamma
        self.returns = torch.zeros(count, num_envs, device=device)
        # (K, 3): count, mean, sum of squared differences from the mean
        self.moments = torch.zeros(count, 3, dtype=torch.float64, device=device)

    def add(self, reward: Tensor, done: Tensor) -> Tensor:
        """Take in the rewards (K, N) of one step; the deviations (K, 1), 1 where all returns are equal."""
        returns = self.returns * self.gamma + reward
        self.returns = torch.where(done, 0.0, returns)
        n = reward.shape[1]
        count, mean, squares = self.moments.unbind(dim=1)
        batch_var, batch_mean = torch.var_mean(self._drawn_in(returns.double()), dim=1, correction=0)
        delta, total = batch_mean - mean, count + n
        squares = squares + batch_var * n + delta.square() * count * n / total
        self.moments = torch.stack([total, mean + delta * n / total, squares], dim=1)
        deviation = (squares / total).sqrt().float()
        return torch.where(deviation > EQUAL_RETURNS, deviation, 1.0)[:, None]

    def _drawn_in(self, returns: Tensor) -> Tensor:
        """Returns (K, N) without outliers."""
        in_order = returns.sort(dim=1).values
        n = returns.shape[1]
        low, median, high = in_order[:, n // 20], in_order[:, n // 2], in_order[:, n - 1 - n // 20]
        count, _, squares = self.moments.unbind(dim=1)
        width = torch.maximum((high - low) / NORMAL_RANGE, (squares / count.clamp(min=1.0)).sqrt())
        limit = torch.where(width > 0.0, OUTLIER * width, torch.inf)
        return torch.clamp(returns, (median - limit)[:, None], (median + limit)[:, None])


class PopulationStatistics:
    """What happened in the training episodes of K candidates between two calls of `collect`."""

    def __init__(
        self, task: Task, max_episode_steps: int, episode_step: Tensor, names: Sequence[Sequence[str]]
    ) -> None:
        """episode_step (K, N): worlds where it is not 0 now are inside a shortened first episode. names: the
        components of each candidate."""
        self.task, self.names = task, [tuple(own) for own in names]
        self.count, worlds = episode_step.shape
        device = self.device = episode_step.device
        self.fitness = EpisodeFitness(
            episode_step.numel(), max_episode_steps, task.fitness_reduce, task.fitness_failed, device
        )
        self.whole = episode_step == 0
        self.length = torch.zeros(self.count, worlds, device=device)
        rows = (self.count, 1 + max(len(own) for own in self.names))
        self._running = torch.zeros(*rows, worlds, dtype=torch.float64, device=device)  # (K, C, N)
        self._steps = torch.zeros(self.count, 1, worlds, dtype=torch.float64, device=device)
        self._rows = rows
        self._reasons: tuple[str, ...] = ()
        self._clear()

    def _clear(self) -> None:
        device = self.device
        # (K, 6): finished episodes, their summed fitness and steps, truncations, all ends, divergences
        self._sums = torch.zeros(self.count, 6, dtype=torch.float64, device=device)
        self._reason_counts = torch.zeros(self.count, len(self._reasons), dtype=torch.int64, device=device)
        # (K, C) of episodes that ended
        self._sum = torch.zeros(self._rows, dtype=torch.float64, device=device)
        self._min = torch.full_like(self._sum, math.inf)
        self._max = torch.full_like(self._sum, -math.inf)
        self._nonfinite = torch.zeros(self._rows, dtype=torch.int64, device=device)

    def add(self, step: EnvStep, rewards: Tensor) -> None:
        """Take in one step. rewards (K, C, N): each candidate's total, then its components in the order of its
        names; zeros where it has fewer than others."""
        shape = self.length.shape
        done = step.done.view(shape)
        diverged = step.reasons["diverged"].view(shape)
        value = self.fitness.add(self.task.fitness(step.signals), step.done, step.reasons["diverged"]).view(shape)
        self.length += 1
        self._running += rewards
        self._steps += 1
        # On a CPU this reads one byte; on a GPU it would wait for the device.
        if not done.is_cuda and not done.any():
            return
        self._add_ended(done)
        finished = done & self.whole
        columns = (
            finished,
            torch.where(finished, value, 0.0),
            torch.where(finished, self.length, 0.0),
            step.truncated.view(shape) & finished,
            done,
            diverged,
        )
        self._sums += torch.stack([c.to(torch.float64) for c in columns], dim=1).sum(dim=2)
        if not self._reasons:
            self._reasons = tuple(step.reasons)
            self._reason_counts = torch.zeros(self.count, len(self._reasons), dtype=torch.int64, device=self.device)
        hits = torch.stack([step.reasons[name].view(shape) for name in self._reasons], dim=1)
        self._reason_counts += (hits & (finished & step.terminated.view(shape))[:, None]).sum(dim=2)
        self.length = self.length.masked_fill(done, 0.0)
        self.whole = self.whole | done

    def _add_ended(self, done: Tensor) -> None:
        values, ended = self._running / self._steps, done[:, None]
        # where() and not a product with the mask: 0 * NaN would carry one world's NaN into the others.
        self._sum += torch.where(ended, values, 0.0).sum(dim=2)
        self._min = torch.minimum(self._min, torch.where(ended, values, math.inf).amin(dim=2))
        self._max = torch.maximum(self._max, torch.where(ended, values, -math.inf).amax(dim=2))
        self._nonfinite += (ended & ~torch.isfinite(values)).sum(dim=2)
        self._running = torch.where(ended, 0.0, self._running)
        self._steps = torch.where(ended, 0.0, self._steps)

    def collect(self) -> list[dict[str, Any]]:
        """For each candidate what `rl.statistics.TrainingStatistics.collect` gives."""
        sums, reasons, nonfinite = (x.tolist() for x in (self._sums, self._reason_counts, self._nonfinite))
        stats = torch.stack([self._sum, self._min, self._max], dim=2).tolist()
        told = [self._collect(*row) for row in zip(self.names, sums, reasons, stats, nonfinite, strict=True)]
        self._clear()
        return told

    def _collect(
        self, names: tuple[str, ...], sums: list[float], reasons: list[int], stats: list[Any], nonfinite: list[int]
    ) -> dict[str, Any]:
        finished, fitness, steps, truncations, ended, diverged = sums
        places = enumerate((TOTAL, *names))
        components = {
            name: {"mean": stats[p][0] / ended, "min": stats[p][1], "max": stats[p][2], "nonfinite": nonfinite[p]}
            if ended
            else {"mean": None, "min": None, "max": None, "nonfinite": 0}
            for p, name in places
        }
        total = components.pop(TOTAL)
        return {
            "fitness": fitness / finished if finished else None,
            "episode_length_s": steps / finished * self.task.control_dt_s if finished else None,
            "reward_mean": total["mean"],
            "components": components,
            "terminations": {name: n for name, n in zip(self._reasons, reasons, strict=True) if n},
            "truncations": int(truncations),
            "diverged": int(diverged),
            "episodes": int(finished),
            "ended": int(ended),
        }
