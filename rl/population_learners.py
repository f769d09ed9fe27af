"""The learners of a population: one stack on a GPU, several small ones on the threads of a CPU.

A stack that is too large for a processor's caches costs more than it saves, and threads that share one operation meet
after each; candidates know nothing of each other, so stacks of some candidates learn side by side.
Which candidates share a stack depends on their number and the threads alone, never on what becomes of them.

Axes: K candidates, N worlds of each, O observation, A action.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from rl.config import PPOConfig
from rl.population_ppo import StackedPPO

CACHED = 2**18
"""Numbers in the widest layer of a stack's minibatch on a CPU, 1 MiB: with more, a stack is slower than its candidates
one by one. Processor time of a candidate's iteration without worlds, in stacks of 1, 2, 4 and 8: cartpole-swingup
(2**17 numbers each) 69, 64, 81 and 73 ms, beside 82 to 88 ms by rsl_rl; ant-run (2**19) 122, 130, 145 and 180 ms,
beside 141 to 161 (one core of a Xeon at 2.5 GHz, other work on the machine)."""

T = TypeVar("T")


def stacked(count: int, samples: int, config: PPOConfig, device: str, threads: int) -> int:
    """Candidates in one stack, of `count`, where each learns from so many samples an iteration."""
    if device != "cpu":
        return count
    numbers = samples // config.num_mini_batches * max(config.hidden_dims)
    return max(1, min(CACHED // numbers, -(-count // threads)))


class Learners:
    """K learners in stacks, with the methods of `StackedPPO`; its arguments are that class's.

    Args:
        threads: Stacks that learn at once, on a CPU.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        num_envs: int,
        steps_per_env: int,
        num_observations: int,
        num_actions: int,
        config: PPOConfig,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        size = stacked(len(seeds), num_envs * steps_per_env, config, device, threads)
        self.stacks = [
            StackedPPO(
                seeds[start : start + size], num_envs, steps_per_env, num_observations, num_actions, config, device
            )
            for start in range(0, len(seeds), size)
        ]
        self._sizes = [stack.count for stack in self.stacks]
        self._places = [(stack, row) for stack in self.stacks for row in range(stack.count)]
        self._threads = (
            ThreadPoolExecutor(threads, "learner", initializer=partial(torch.set_num_threads, 1))
            if threads > 1 and len(self.stacks) > 1
            else None
        )

    def draw_episode_steps(self, num_envs: int, max_steps: int) -> Tensor:
        """Random points (K, N) of the time limit, at which the first episodes start."""
        return torch.cat([stack.draw_episode_steps(num_envs, max_steps) for stack in self.stacks])

    def act(self, observation: Tensor) -> Tensor:
        """Actions (K, N, A) for observations (K, N, O)."""
        parts = observation.split(self._sizes)
        return torch.cat([stack.act(part) for stack, part in zip(self.stacks, parts, strict=True)])

    def record(self, reward: Tensor, done: Tensor, time_outs: Tensor) -> None:
        """What came of the actions: (K, N) each."""
        for stack, *parts in zip(self.stacks, *(x.split(self._sizes) for x in (reward, done, time_outs)), strict=True):
            stack.record(*parts)

    def learn(self, observation: Tensor, alive: Tensor) -> dict[str, list[float]]:
        """Returns of the rollout, which ended at observations (K, N, O), and one update of those alive (K,): mean
        losses, name -> K numbers."""
        parts = zip(self.stacks, observation.split(self._sizes), alive.split(self._sizes), strict=True)
        told = self._map(_learn, list(parts))
        return {name: [value for losses in told for value in losses[name]] for name in told[0]}

    def finite(self) -> list[bool]:
        """Of each candidate, whether all weights are finite."""
        return [bool(value) for stack in self.stacks for value in stack.finite().tolist()]

    def learning_rates(self) -> list[float]:
        """Of each candidate."""
        return [value for stack in self.stacks for value in stack.learning_rate[:, 0].tolist()]

    def noise_stds(self) -> list[float]:
        """Mean deviation of each candidate's noise in its latest minibatch."""
        return [value for stack in self.stacks for value in stack.noise_std.tolist()]

    def save(self, k: int) -> dict[str, Any]:
        """Networks and optimiser of candidate k, as rsl_rl's `PPO.save` writes them."""
        stack, row = self._places[k]
        return stack.save(row)

    def rng_state(self, k: int) -> Tensor:
        """See `StackedPPO.rng_state`."""
        stack, row = self._places[k]
        return stack.rng_state(row)

    def load(self, k: int, state: Mapping[str, Any]) -> None:
        """Put candidate k into a saved state; raises what `StackedPPO.load` does."""
        stack, row = self._places[k]
        stack.load(row, state)

    def close(self) -> None:
        """End the threads."""
        if self._threads is not None:
            self._threads.shutdown()

    def _map(self, function: Callable[[Any], T], items: Sequence[Any]) -> list[T]:
        return list(map(function, items)) if self._threads is None else list(self._threads.map(function, items))


def _learn(part: tuple[StackedPPO, Tensor, Tensor]) -> dict[str, list[float]]:
    stack, observation, alive = part
    with torch.inference_mode():
        stack.compute_returns(observation)
    return {name: values.tolist() for name, values in stack.update(alive).items()}
