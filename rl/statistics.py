"""What happened in the episodes of training: fitness, lengths, ends, reward components. Kept on the device.

Only whole episodes count. Training starts its worlds at random points of the time limit, so that they do not
all end at once; the shortened first episode of such a world is left out: its length and fitness say nothing.
(Its reward components are means per step, so they count.) Episodes count in the iteration in which they end,
so the first numbers of a training come from episodes that failed early. One host synchronisation per
`collect`. Axes: N worlds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rewards.components import EpisodeStatistics
from rl.episode_fitness import EpisodeFitness
from rl.rsl_adapter import RewardedStep
from tasks.env import TaskEnv


class TrainingStatistics:
    """Gathers `RewardedStep`s between two calls of `collect`."""

    def __init__(self, env: TaskEnv) -> None:
        """Worlds whose `episode_step` is not 0 now are inside a shortened first episode."""
        task = env.task
        self.env = env
        self.control_dt_s = task.control_dt_s
        self.fitness = EpisodeFitness(
            env.num_envs, env.max_episode_steps, task.fitness_reduce, task.fitness_failed, env.device
        )
        self.whole = env.episode_step == 0
        self.length = torch.zeros(env.num_envs, device=env.device)
        self.components: EpisodeStatistics | None = None
        self._reasons: tuple[str, ...] = ()
        self._clear()

    def _clear(self) -> None:
        device = self.env.device
        # finished episodes, their summed fitness and steps, truncations, all ends (shortened ones
        # too), divergences
        self._sums = torch.zeros(6, dtype=torch.float64, device=device)
        self._reason_counts = torch.zeros(len(self._reasons), dtype=torch.int64, device=device)

    def add(self, step: RewardedStep) -> None:
        """Take in one step of all worlds."""
        env_step = step.env
        done = env_step.done
        diverged = env_step.reasons["diverged"]
        value = self.fitness.add(self.env.task.fitness(env_step.signals), done, diverged)
        self.length += 1
        self._add_components(step, done)
        # On a CPU this reads one byte; on a GPU it would wait for the device, so there the sums are
        # always taken.
        if done.is_cuda or done.any():
            finished = done & self.whole
            columns = (
                finished,
                torch.where(finished, value, 0.0),
                torch.where(finished, self.length, 0.0),
                env_step.truncated & finished,
                done,
                diverged,
            )
            self._sums += torch.stack([c.to(torch.float64) for c in columns]).sum(dim=1)
            if not self._reasons:
                self._reasons = tuple(env_step.reasons)
                self._reason_counts = torch.zeros(len(self._reasons), dtype=torch.int64, device=done.device)
            hits = torch.stack([env_step.reasons[name] for name in self._reasons])
            self._reason_counts += (hits & finished & env_step.terminated).sum(dim=1)
            self.length = self.length.masked_fill(done, 0.0)
            self.whole = self.whole | done

    def _add_components(self, step: RewardedStep, done: Tensor) -> None:
        if self.components is None:
            self.components = EpisodeStatistics(self.env.num_envs, tuple(step.components), self.env.device)
        self.components.add(step.components, step.total, done)

    def collect(self) -> dict[str, Any]:
        """The numbers of a metrics line (see `rl.record`) over the episodes that ended since the last call.

        Beside them: "episodes" that count, and "ended", all that ended.
        """
        finished, fitness, steps, truncations, ended, diverged = self._sums.tolist()
        counts = self._reason_counts.tolist()
        stats = self.components.collect() if self.components is not None else {}
        components = {
            name: {"mean": s.mean, "min": s.min, "max": s.max, "nonfinite": s.nonfinite} for name, s in stats.items()
        }
        total = components.pop("total", None)
        result = {
            "fitness": fitness / finished if finished else None,
            "episode_length_s": steps / finished * self.control_dt_s if finished else None,
            "reward_mean": total["mean"] if total else None,
            "components": components,
            "terminations": {name: n for name, n in zip(self._reasons, counts, strict=True) if n},
            "truncations": int(truncations),
            "diverged": int(diverged),
            "episodes": int(finished),
            "ended": int(ended),
        }
        self._clear()
        return result
