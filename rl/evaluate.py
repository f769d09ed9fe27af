"""Held-out evaluation: one whole episode per world, mean actions, no reward program in sight.

Axes: E episodes (= worlds). Only the first episode of each world counts, so long and short episodes weigh the
same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rl import progress
from rl.acting import Player, actions_of
from rl.behaviour import Behaviour
from rl.episode_fitness import EpisodeFitness
from tasks.env import EnvStep, TaskEnv, make_env
from tasks.errors import UserError
from tasks.task import Task


@dataclass(frozen=True)
class Evaluation:
    """How a policy did over E held-out episodes."""

    fitness: float
    """Mean over the episodes, in the task's unit."""
    fitness_std: float
    """Standard deviation over the episodes (population)."""
    per_episode: Tensor
    """(E,) fitness of each episode."""
    episode_length_s: float
    """Mean length of the episodes, seconds."""
    terminations: dict[str, int]
    """Failure reason -> episodes that it ended; several reasons may hold for one episode."""
    truncations: int
    """Episodes that reached the time limit."""
    diverged: int
    """Episodes that ended because the simulation diverged."""
    seed: int
    """Seed of the worlds."""
    behaviour: dict[str, list[list[float]]]
    """How the signals were distributed: see `rl.behaviour`."""


Watch = Callable[[EnvStep, Tensor], None]
"""Told of each step, and in which worlds (E,) bool the episode that counts was still running before it."""


def evaluate(
    task: Task,
    policy: Player,
    *,
    episodes: int,
    seed: int,
    num_threads: int = 0,
    watch: Watch | None = None,
    backend: str = "native",
    device: str | None = None,
) -> Evaluation:
    """Run `policy` for one episode in each of `episodes` fresh worlds.

    The policy has to be on `device`, which is chosen as in `tasks.env.make_env`.
    Raises UserError if the policy's actions do not fit the task, or if the task's fitness is not finite.
    """
    env = make_env(task, episodes, seed=seed, num_threads=num_threads, backend=backend, device=device)
    try:
        with torch.no_grad():
            return _run(task, env, policy, seed, watch)
    finally:
        env.close()


def _run(task: Task, env: TaskEnv, policy: Player, seed: int, watch: Watch | None) -> Evaluation:
    count = env.num_envs
    tracker = EpisodeFitness(count, env.max_episode_steps, task.fitness_reduce, task.fitness_failed, env.device)
    per_episode = torch.zeros(count, device=env.device)
    length = torch.zeros(count, device=env.device)
    running = torch.ones(count, dtype=torch.bool, device=env.device)
    terminations: dict[str, int] = {}
    truncations = 0
    behaviour = Behaviour(task.signal_table, env.max_episode_steps)
    for _ in range(env.max_episode_steps):
        actions = actions_of(policy, env)
        if actions.shape != (count, env.num_actions):
            raise UserError(
                f"the policy gave actions of shape {tuple(actions.shape)}, "
                f"task '{task.name}' takes {env.num_actions} each."
            )
        step = env.step(actions)
        progress.beat("evaluation")
        if watch is not None:
            watch(step, running)
        ended = step.done
        value = tracker.add(task.fitness(step.signals), ended, step.reasons["diverged"])
        behaviour.add(step.signals, running & ~step.reasons["diverged"])
        length += running
        first_end = ended & running
        if first_end.any():
            per_episode = torch.where(first_end, value, per_episode)
            for reason, hit in step.reasons.items():
                terminations[reason] = terminations.get(reason, 0) + int((hit & first_end & step.terminated).sum())
            truncations += int((step.truncated & first_end).sum())
            running &= ~ended
            if not running.any():
                break
    fitness = per_episode.double()
    if not math.isfinite(float(fitness.sum())):
        raise UserError(
            f"the fitness of task '{task.name}' is not finite in {int((~fitness.isfinite()).sum())} episodes."
        )
    return Evaluation(
        fitness=float(fitness.mean()),
        fitness_std=float(fitness.std(correction=0)),
        per_episode=per_episode.cpu(),
        episode_length_s=float(length.mean()) * task.control_dt_s,
        terminations={reason: n for reason, n in terminations.items() if n},
        truncations=truncations,
        diverged=terminations.get("diverged", 0),
        seed=seed,
        behaviour=behaviour.quantiles(),
    )
