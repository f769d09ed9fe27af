"""How much of its experts a generalist keeps, closed loop, on seeds and on words that it was not trained with.

For each task three players act in the same worlds: the student, the expert that taught it, and one that does nothing.
What the student keeps is (student - nothing) / |expert - nothing|: 1 is the expert's fitness, 0 that of zero actions. A
plain quotient of two fitnesses means nothing where these are negative or where zero is no natural end of the scale; the
human-normalised score's zero, the sparse reward's fitness, would need a training for each task, and zero actions need
an episode. They are mostly the harder zero as well: a body that stands still errs less than one that flails.

Intervals are percentiles of a bootstrap over episodes. An episode has the same start for all players, so that
episodes are drawn for all of them together.

Knows nothing of files, and not where experts come from.

Axes: E episodes (= worlds), R bootstrap samples, C commands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distill.generalist import Generalist
from distill.told import Listening, Obeyed, Words, held_out_words, told_words
from rl.acting import Player
from rl.evaluate import evaluate
from tasks.env import TaskEnv
from tasks.errors import UserError
from tasks.task import Task

REPEATS = 2000
"""Bootstrap samples; rliable's default for its plots is as many."""
LEVEL = 0.95
_SEED = 0  # the same episodes give the same intervals
STUDENT, EXPERT, IDLE, HELD_OUT = "student", "expert", "nothing", "student, held-out words"


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval at `LEVEL`."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Run:
    """How one player did."""

    fitness: Estimate
    """Mean over the episodes, in the task's unit."""
    per_episode: tuple[float, ...]
    """Fitness of each episode, E."""
    episode_length_s: float
    """Mean length of the episodes."""
    terminations: dict[str, int]
    """Failure -> episodes that it ended."""
    obeyed: Obeyed | None
    """What it did under each command; None for a task without."""


@dataclass(frozen=True)
class SkillReport:
    """How a generalist does in one of its tasks."""

    task: str
    unit: str
    """Unit of the fitness."""
    embodiment: str
    """The body, as the head knows it."""
    execute: int
    """Actions of a chunk that were carried out."""
    steps: int
    """Euler steps of a chunk."""
    seed: int
    """Seed of the worlds."""
    runs: dict[str, Run]
    """Who acted -> how it went: STUDENT, IDLE, EXPERT where there is one, HELD_OUT where the task has commands."""
    kept: Estimate | None
    """(student - nothing) / |expert - nothing|; None without an expert, or where nothing is as good as the expert."""
    kept_held_out: Estimate | None
    """The same with held-out words."""


@dataclass(frozen=True)
class Price:
    """What the student keeps when it is run otherwise."""

    task: str
    execute: int
    """Actions of a chunk that were carried out."""
    steps: int
    """Euler steps of a chunk."""
    fitness: Estimate
    kept: Estimate | None


@dataclass(frozen=True)
class Measure:
    """How to measure."""

    episodes: int = 64
    """Episodes of each player, each in a world of its own."""
    seed: int = 10_000
    """Seed of the worlds; none that anything was trained on."""
    num_threads: int = 0
    """Physics threads, 0 for all cores."""
    execute: int | None = None
    """Actions of a chunk that are carried out; None: each embodiment's."""
    steps: int | None = None
    """Euler steps of a chunk; None: the head's."""
    noise: float = 1.0
    """Standard deviation of the noise that a chunk starts from."""

    def __post_init__(self) -> None:
        for name, least in (("episodes", 2), ("seed", 0), ("num_threads", 0)):
            if getattr(self, name) < least:
                raise UserError(f"evaluate: {name} is {getattr(self, name)}; expected at least {least}.")


class Idle:
    """Does nothing: zero actions."""

    def act(self, env: TaskEnv) -> Tensor:
        """Zeros (N, A)."""
        return torch.zeros(env.num_envs, env.num_actions, device=env.device)


def evaluate_skill(
    generalist: Generalist,
    name: str,
    expert: Player | None,
    measure: Measure = Measure(),
    say: Callable[[str], None] = lambda line: None,
) -> SkillReport:
    """Measure one skill.

    Args:
        generalist: The student.
        name: Task of the skill.
        expert: Who taught it, acting in the same task; None: it is not here, and what was kept is not known.
        measure: How.
        say: Told who is about to act.

    Raises:
        UserError: the skill is unknown, its task is gone, or does not fit the body any more.
    """
    task = generalist.make_task(name)
    runs: dict[str, Run] = {}
    players: list[tuple[str, Player | None, Words]] = [
        (IDLE, Idle(), told_words),
        (EXPERT, expert, told_words),
        (STUDENT, student(generalist, task, measure), told_words),
    ]
    if task.commands is not None:
        players.append((HELD_OUT, student(generalist, task, measure, held_out_words), held_out_words))
    for who, player, words in players:
        if player is not None:
            say(f"{name}: {who}")
            runs[who] = run_player(task, player, measure, words)
    embodiment, flow = generalist.embodiment(name), generalist.head.config.objective == "flow"
    steps = generalist.head.config.sampling_steps if measure.steps is None else measure.steps
    return SkillReport(
        task=name,
        unit=task.fitness_unit,
        embodiment=embodiment.name,
        execute=embodiment.execute if measure.execute is None else measure.execute,
        steps=steps if flow else 1,
        seed=measure.seed,
        runs=runs,
        kept=_kept(runs, STUDENT),
        kept_held_out=_kept(runs, HELD_OUT),
    )


def student(generalist: Generalist, task: Task, measure: Measure, words: Words = told_words) -> Player:
    """The generalist as a player of a task, for one rollout."""
    return generalist.actor(task, execute=measure.execute, steps=measure.steps, noise=measure.noise, words=words)


def run_player(task: Task, player: Player, measure: Measure, words: Words = told_words) -> Run:
    """Play the episodes. Raises UserError like `rl.evaluate.evaluate`."""
    listening = Listening(task, player, words) if task.commands is not None else None
    found = evaluate(
        task,
        player if listening is None else listening,
        episodes=measure.episodes,
        seed=measure.seed,
        num_threads=measure.num_threads,
        watch=None if listening is None else listening.watch,
    )
    per_episode = tuple(found.per_episode.double().tolist())
    obeyed = None if listening is None else listening.obeyed
    return Run(mean_estimate(per_episode), per_episode, found.episode_length_s, found.terminations, obeyed)


def prices(
    generalist: Generalist,
    report: SkillReport,
    executes: Sequence[int],
    steps: Sequence[int],
    measure: Measure = Measure(),
    say: Callable[[str], None] = lambda line: None,
) -> list[Price]:
    """What a skill keeps when more or fewer actions of a chunk are carried out, and in more or fewer Euler steps.

    Args:
        generalist: The student.
        report: Of the skill, made with the same episodes and seed: its expert and its zero are compared with.
        executes: Actions carried out, each at the report's Euler steps; those longer than a chunk are left out.
        steps: Euler steps, each at the report's `execute`; a regression head has only one, and none is tried.
        measure: How.
        say: Told what is about to be tried.
    """
    horizon = generalist.embodiment(report.task).horizon
    tried = [(execute, report.steps) for execute in executes if execute <= horizon]
    if generalist.head.config.objective == "flow":
        tried += [(report.execute, count) for count in steps]
    task = generalist.make_task(report.task)
    found: dict[tuple[int, int], Price] = {}
    for execute, count in tried:
        if (execute, count) in found:
            continue
        say(f"{report.task}: execute {execute}, {count} Euler steps")
        player = generalist.actor(task, execute=execute, steps=count, noise=measure.noise)
        same = (execute, count) == (report.execute, report.steps)
        run = report.runs[STUDENT] if same else run_player(task, player, measure)
        kept = _kept({**report.runs, STUDENT: run}, STUDENT)
        found[execute, count] = Price(report.task, execute, count, run.fitness, kept)
    return list(found.values())


def mean_estimate(values: Sequence[float]) -> Estimate:
    """The mean of episodes, with its interval."""
    data = np.asarray(values)
    means = data[_drawn(len(data))].mean(axis=1)
    return Estimate(float(data.mean()), *_interval(means))


def kept_estimate(acted: Sequence[float], expert: Sequence[float], idle: Sequence[float]) -> Estimate | None:
    """(mean acted - mean idle) / |mean expert - mean idle| over the same episodes E, with its interval; None where the
    expert is as good as idle."""
    table = np.asarray([acted, expert, idle])  # (3, E)
    value = _ratio(table.mean(axis=1))
    if value is None:
        return None
    means = table[:, _drawn(table.shape[1])].mean(axis=2)  # (3, R)
    ratios = [ratio for column in means.T if (ratio := _ratio(column)) is not None]
    return Estimate(value, *_interval(np.asarray(ratios)))


def _ratio(means: np.ndarray) -> float | None:
    acted, expert, idle = (float(mean) for mean in means)
    return (acted - idle) / abs(expert - idle) if expert != idle else None


def _kept(runs: Mapping[str, Run], who: str) -> Estimate | None:
    if who not in runs or EXPERT not in runs:
        return None
    return kept_estimate(runs[who].per_episode, runs[EXPERT].per_episode, runs[IDLE].per_episode)


def _drawn(count: int) -> np.ndarray:
    """Episodes of each bootstrap sample, (R, E)."""
    return np.random.default_rng(_SEED).integers(count, size=(REPEATS, count))


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
