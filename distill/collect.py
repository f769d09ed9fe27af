"""Rolls out an expert and keeps what succeeded: whole episodes whose fitness reaches a threshold, for a dataset.

A round is one episode in each of N worlds, so that long and short episodes are equally likely; its seed follows from
the collection's seed, the round's number and who acts. Episodes go to the dataset when their round has ended, by their
world: never by who ended first, which would prefer early ends. A collection that was interrupted plays the round that
it was in again, adds what is missing, and ends as an undisturbed one.

With noise the expert's action is disturbed before it is carried out, and what the expert wanted stays the action to
be learnt: the demonstrations then show how to come back from a mistake (DART, Laskey et al. 2017, arXiv 1703.09327).

A round is in memory as a whole: N worlds x steps x numbers of a frame x 4 bytes. Knows nothing of files.

Axes: N worlds, T steps, O observation, A action.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from distill.dataset.episode import Episode, Origin
from distill.dataset.layout import (
    ACTION,
    DONE,
    EXECUTED,
    QPOS,
    QVEL,
    STATE,
    TRUNCATED,
    DatasetSpec,
    Feature,
    frame_rate,
    names_or_none,
)
from distill.dataset.writer import DatasetWriter
from rl.checkpoint import Policy
from rl.episode_fitness import EpisodeFitness
from tasks.env import TaskEnv, make_env
from tasks.errors import UserError
from tasks.task import Task

Record = Callable[[TaskEnv, Tensor], Tensor]
"""Environment and the expert's observation (N, O) -> what is recorded of it, (N, O')."""
Instruct = Callable[[TaskEnv], Sequence[str]]
"""Environment -> what each of its N worlds is told at present."""
CarryOut = Callable[[TaskEnv, Tensor], Tensor]
"""Environment and what the expert wants (N, A) -> what is carried out instead, (N, A). It may remember: one serves one
round."""


@dataclass(frozen=True)
class CollectConfig:
    """How much to collect, and of what."""

    episodes: int = 256
    """Episodes to keep."""
    num_envs: int = 256
    """Worlds N of a round."""
    max_rounds: int = 20
    """Rounds at most, however few episodes were kept."""
    seed: int = 0
    """Seed of all rounds."""
    min_fitness: float | None = None
    """An episode is kept if its fitness is at least this; None: all are kept that did not diverge."""
    action_noise_std: float = 0.0
    """Standard deviation of the noise on actions that are carried out, in units of an action."""
    num_threads: int = 0
    """Physics threads, 0 for all cores."""

    def __post_init__(self) -> None:
        for name, least in (("episodes", 1), ("num_envs", 1), ("max_rounds", 1), ("seed", 0), ("num_threads", 0)):
            if getattr(self, name) < least:
                raise UserError(f"collect: {name} is {getattr(self, name)}; expected at least {least}.")
        if not 0 <= self.action_noise_std < math.inf:
            raise UserError(f"collect: action_noise_std is {self.action_noise_std}; expected a number of at least 0.")
        if self.min_fitness is not None and not math.isfinite(self.min_fitness):
            raise UserError(f"collect: min_fitness is {self.min_fitness}; expected a number, or none.")


@dataclass(frozen=True)
class CollectReport:
    """What came of a collection, rounds of an interrupted start included."""

    rounds: int = 0
    """Rounds so far."""
    rolled: int = 0
    """Episodes that were played in them."""
    passed: int = 0
    """Episodes that reached the threshold."""
    kept: int = 0
    """Episodes in the dataset: of the last round no more than were wanted."""
    diverged: int = 0
    """Episodes that were left out because the simulation diverged, since the last interruption."""
    best_fitness: float = -math.inf
    """Largest fitness seen since the last interruption."""
    min_fitness: float | None = None
    """The threshold."""

    @property
    def yield_fraction(self) -> float:
        """Share of the played episodes that passed."""
        return self.passed / self.rolled if self.rolled else 0.0


def dataset_spec(env: TaskEnv, robot_type: str, config: CollectConfig, record: Record | None = None, *,
                 disturbed: bool = False) -> DatasetSpec:  # fmt: skip
    """The features that `collect` brings, for a body named `robot_type`. disturbed: what is carried out is not what the
    expert wants, by noise or by `carry_out`, and is recorded as well."""
    observation = env.observe() if record is None else record(env, env.observe())
    model = env.sim.model
    actuators = names_or_none(model.actuator(number).name for number in range(model.nu))
    features = {
        STATE: Feature("float32", (int(observation.shape[1]),)),
        ACTION: Feature("float32", (env.num_actions,), actuators),
        QPOS: Feature("float32", (int(model.nq),)),
        QVEL: Feature("float32", (int(model.nv),)),
        DONE: Feature("bool", (1,)),
        TRUNCATED: Feature("bool", (1,)),
    }
    if config.action_noise_std or disturbed:
        features[EXECUTED] = Feature("float32", (env.num_actions,), actuators)
    return DatasetSpec(robot_type, frame_rate(env.task.control_dt_s), features)


def source_of(policy: Policy) -> str:
    """A name for a checkpoint's policy that no other checkpoint has."""
    meta = policy.meta
    return f"{meta['task']} iteration {meta['iteration']} {str(meta.get('sha256', ''))[:12]}".strip()


def collect(
    task: Task,
    policy: Callable[[Tensor], Tensor],
    writer: DatasetWriter,
    config: CollectConfig,
    *,
    source: str,
    record: Record | None = None,
    instruct: Instruct | None = None,
    carry_out: CarryOut | None = None,
    on_round: Callable[[CollectReport], None] | None = None,
) -> CollectReport:
    """Play rounds until enough episodes are in the writer's dataset, or `max_rounds` are played.

    Args:
        task: What is done.
        policy: The expert, (N, O) -> (N, A); its actions are clipped to [-1, 1], as the environment does.
        writer: Takes the episodes; its spec is `dataset_spec`'s.
        config: How much, and of what.
        source: Who acts, as `source_of` says it; together with the seed it tells this collection from others in
            the same dataset.
        record: What is recorded in place of the expert's observation. It may not change the environment.
        instruct: What each world is told; the task's instruction where not given.
        carry_out: Who acts in the expert's place; what the expert wants stays what is recorded as the action.
        on_round: Told after each round.

    Raises:
        UserError: no episode reached the threshold, the policy does not fit the task, or the disk refuses.
    """
    report = CollectReport(min_fitness=config.min_fitness)
    written = [origin for origin in writer.origins if origin.source == source]
    seeds = [_round_seed(config, number, source) for number in range(config.max_rounds)]
    for number, seed in enumerate(seeds):
        there = {origin.world for origin in written if origin.seed == seed}
        report = replace(report, rounds=number + 1, rolled=report.rolled + config.num_envs)
        if any(origin.seed in seeds[number + 1 :] for origin in written):  # it was finished before the interruption
            report = replace(report, passed=report.passed + len(there), kept=report.kept + len(there))
        else:
            report = _play(
                task, policy, writer, config, report, _Round(source, seed, there, record, instruct, carry_out)
            )
        if on_round is not None:
            on_round(report)
        if report.kept >= config.episodes:
            break
    if not report.passed and config.min_fitness is None:
        raise UserError(
            f"collect: the simulation diverged in all {report.rolled} episodes of '{task.name}': whoever acts drives "
            "it to states that the physics cannot follow."
        )
    if not report.passed:
        raise UserError(
            f"collect: none of {report.rolled} episodes of '{task.name}' reached a fitness of {config.min_fitness} "
            f"{task.fitness_unit}, the best {report.best_fitness:.4g}; lower min_fitness, or take a better expert."
        )
    return report


@dataclass(frozen=True)
class _Round:
    """What tells one round from another."""

    source: str
    seed: int
    there: set[int]
    """Worlds whose episodes are in the dataset already."""
    record: Record | None
    instruct: Instruct | None
    carry_out: CarryOut | None


def _play(
    task: Task,
    policy: Callable[[Tensor], Tensor],
    writer: DatasetWriter,
    config: CollectConfig,
    report: CollectReport,
    this: _Round,
) -> CollectReport:
    env = make_env(task, config.num_envs, seed=this.seed, num_threads=config.num_threads)
    try:
        with torch.no_grad():
            tape = _Tape(env, task)
            tape.play(policy, config, this)
    finally:
        env.close()
    fitness = tape.fitness.double()
    if not bool(fitness.isfinite().all()):
        count = int((~fitness.isfinite()).sum())
        raise UserError(f"collect: the fitness of task '{task.name}' is not finite in {count} episodes.")
    good = ~tape.diverged & (fitness >= (-math.inf if config.min_fitness is None else config.min_fitness))
    wanted = good.nonzero()[:, 0].tolist()[: config.episodes - report.kept]
    for episode in tape.episodes([world for world in wanted if world not in this.there], this):
        writer.add_episode(episode)
    return replace(
        report,
        passed=report.passed + int(good.sum()),
        kept=report.kept + len(wanted),
        diverged=report.diverged + int(tape.diverged.sum()),
        best_fitness=max(report.best_fitness, float(fitness.max())),
    )


class _Tape:
    """Everything that one round of N worlds shows, step by step."""

    def __init__(self, env: TaskEnv, task: Task) -> None:
        self._env, self._task = env, task
        zeros = torch.zeros(env.num_envs, device=env.device)
        self.length = zeros.long()
        """(N,) steps of each world's episode."""
        self.fitness = zeros
        """(N,) fitness of each episode."""
        self.diverged = zeros.bool()
        """(N,) whether its simulation diverged."""
        self._steps: dict[str, list[Tensor]] = {}
        self._words: list[Sequence[str]] = []

    def play(self, policy: Callable[[Tensor], Tensor], config: CollectConfig, this: _Round) -> None:
        """One episode in each world."""
        env, task = self._env, self._task
        limit, reduce, failed = env.max_episode_steps, task.fitness_reduce, task.fitness_failed
        tracker = EpisodeFitness(env.num_envs, limit, reduce, failed, env.device)
        noise = torch.Generator().manual_seed(this.seed + 1)
        running = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
        while running.any():
            observation = env.observe()
            wanted = policy(observation)
            if wanted.shape != (env.num_envs, env.num_actions):
                raise UserError(
                    f"the policy gave actions of shape {tuple(wanted.shape)}, "
                    f"task '{task.name}' takes {env.num_actions} each."
                )
            wanted = wanted.clamp(-1.0, 1.0)
            shown = observation if this.record is None else this.record(env, observation)
            frame = {STATE: shown, ACTION: wanted, QPOS: env.sim.qpos, QVEL: env.sim.qvel}
            carried_out = wanted if this.carry_out is None else this.carry_out(env, wanted).clamp(-1.0, 1.0)
            if config.action_noise_std:
                disturbance = torch.randn(wanted.shape, generator=noise).to(wanted.device)
                carried_out = (carried_out + config.action_noise_std * disturbance).clamp(-1.0, 1.0)
            if carried_out is not wanted:
                frame[EXECUTED] = carried_out
            # Copies: a backend may hand out views of memory that the step is going to change.
            frame = {name: tensor.detach().clone() for name, tensor in frame.items()}
            self._words.append([task.instruction] * env.num_envs if this.instruct is None else this.instruct(env))
            step = env.step(carried_out)
            frame |= {DONE: step.done, TRUNCATED: step.truncated}
            for name, tensor in frame.items():
                self._steps.setdefault(name, []).append(tensor)
            value = tracker.add(task.fitness(step.signals), step.done, step.reasons["diverged"])
            self.length += running
            ended = step.done & running
            self.fitness = torch.where(ended, value, self.fitness)
            self.diverged |= step.reasons["diverged"] & ended
            running &= ~ended

    def episodes(self, worlds: Sequence[int], this: _Round) -> Iterator[Episode]:
        """The episodes of some worlds."""
        steps = {name: torch.stack(tensors).cpu().numpy() for name, tensors in self._steps.items()}  # (T, N, ...)
        for world in worlds:
            length = int(self.length[world])
            words = [told[world] for told in self._words[:length]]
            columns = {name: np.ascontiguousarray(column[:length, world]) for name, column in steps.items()}
            origin = Origin(this.source, this.seed, world, float(self.fitness[world]))
            yield Episode(columns, words, origin)


def _round_seed(config: CollectConfig, number: int, source: str) -> int:
    """A seed for a round's simulation, apart from those of other rounds and of collections that differ in anything but
    how much is collected."""
    other = f"{source}|{config.num_envs}|{config.min_fitness}|{config.action_noise_std}"
    return int(np.random.SeedSequence([config.seed, number, zlib.crc32(other.encode())]).generate_state(1)[0])
