"""Told to do X, did Y: what bodies did under each command, counted over stretches of one command each.

A stretch begins with an episode or with a new command and ends with the next one, or with the episode. What is done in
it is averaged, the first `Task.fitness_settle_s` left out, and called by the command that it comes nearest to
(`Task.fitness_did`). A stretch in which the body fell did nothing of the list, however short it was. One that the time
limit cut before it had as much time behind the settling as the settling takes is not counted.

Knows nothing of who acts, and of words only to count by phrase.

Axes: N worlds, C commands, V numbers of a command.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rl.acting import Player, actions_of
from tasks.env import EnvStep, TaskEnv
from tasks.errors import UserError
from tasks.task import Task

FELL = "fell"
"""Name of the matrix's last column."""

Words = Callable[[TaskEnv], Sequence[str]]
"""Environment -> what each of its N worlds is told at present."""


def told_words(env: TaskEnv) -> Sequence[str]:
    """What the task says to each world, in the words of its training."""
    return env.task.instructions(env.sim)


def held_out_words(env: TaskEnv) -> Sequence[str]:
    """What the task says to each world, in words that are kept for tests."""
    return env.task.instructions(env.sim, held_out=True)


@dataclass(frozen=True)
class Obeyed:
    """Counts of stretches."""

    commands: tuple[str, ...]
    """Names of the commands, C."""
    matrix: tuple[tuple[int, ...], ...]
    """C rows, one for each command told; columns: what was done, C commands and falls."""
    phrases: dict[str, tuple[int, int]]
    """Phrase -> its stretches that did what it says, and all of its stretches."""

    @property
    def stretches(self) -> int:
        """How many were counted."""
        return sum(map(sum, self.matrix))

    @property
    def share(self) -> float | None:
        """Share of the stretches that did what they were told; None without any."""
        right = sum(row[place] for place, row in enumerate(self.matrix))
        return right / self.stretches if self.stretches else None


class Listening:
    """A player, and the count of what was done under each command while it acts: give `act` to whoever runs the worlds
    and `watch` to whoever sees their steps. For one environment."""

    def __init__(self, task: Task, player: Player, words: Words = told_words) -> None:
        """words: what the player is told. Raises UserError for a task without commands."""
        if task.commands is None:
            raise UserError(f"task '{task.name}' has no commands; there is nothing to be told and to obey.")
        self._task, self._player, self._words_of = task, player, words
        self._names = task.commands.names
        self._settle = max(1, round(task.fitness_settle_s / task.control_dt_s))
        count = len(self._names)
        self._matrix = torch.zeros(count, count + 1, dtype=torch.int64)
        self._phrases: dict[str, tuple[int, int]] = {}
        self._told: Tensor | None = None  # (N,) command of each world's stretch
        self._words: Sequence[str] = ()  # N phrases of it
        self._steps = self._sum = torch.zeros(0)  # (N,) steps of it, and (N, V) sum of what was achieved once settled

    def act(self, env: TaskEnv) -> Tensor:
        """The player's actions (N, A); a new command closes the stretch before it."""
        told = env.sim.memory["command_index"]
        if self._told is None:
            self._told, self._words = told.clone(), self._words_of(env)
            self._steps = torch.zeros_like(told)
            self._sum = torch.zeros(len(told), 1, device=told.device)
        new = (told != self._told) | (env.episode_step == 0)
        if bool(new.any()):
            self._close(new & (self._steps > 0))
            self._told, self._words = told.clone(), self._words_of(env)
        return actions_of(self._player, env)

    def watch(self, step: EnvStep, running: Tensor) -> None:
        """Take in a step that `act` acted in; only worlds `running` (N,) bool count."""
        assert self._told is not None, "act comes before the first step"
        achieved = self._task.fitness_achieved(step.signals)
        self._steps = self._steps + 1
        counted = (running & ~step.reasons["diverged"] & (self._steps > self._settle))[:, None]
        self._sum = self._sum + torch.where(counted, achieved, torch.zeros_like(achieved))
        # What has ended is closed now: the world's next state is of another episode. Others than running never count.
        self._close(step.truncated & running)
        self._close(step.terminated & running, fell=True)
        self._steps = torch.where(running & ~step.done, self._steps, 0)
        self._sum = torch.where((running & ~step.done)[:, None], self._sum, 0.0)

    @property
    def obeyed(self) -> Obeyed:
        """The counts so far."""
        return Obeyed(self._names, tuple(tuple(row) for row in self._matrix.tolist()), dict(self._phrases))

    def _close(self, ends: Tensor, fell: bool = False) -> None:
        """Count the stretches of worlds `ends` (N,) bool, and begin new ones there."""
        assert self._told is not None
        judged = ends if fell else ends & (self._steps >= 2 * self._settle)
        worlds = judged.nonzero()[:, 0]
        if len(worlds):
            told = self._told[worlds].tolist()
            if fell:
                done = [len(self._names)] * len(told)
            else:
                mean = self._sum[worlds] / (self._steps[worlds] - self._settle)[:, None]
                done = self._task.fitness_did(mean).tolist()
            for world, wanted, did in zip(worlds.tolist(), told, done, strict=True):
                self._matrix[wanted, did] += 1
                phrase = self._words[world]
                right, of_all = self._phrases.get(phrase, (0, 0))
                self._phrases[phrase] = (right + (did == wanted), of_all + 1)
        self._steps = self._steps.masked_fill(ends, 0)
        self._sum = self._sum.masked_fill(ends[:, None], 0.0)


def add(first: Obeyed, second: Obeyed) -> Obeyed:
    """Counts of two rollouts of one task together."""
    pairs = zip(first.matrix, second.matrix, strict=True)
    matrix = tuple(tuple(a + b for a, b in zip(*rows, strict=True)) for rows in pairs)
    phrases = dict(first.phrases)
    for phrase, (right, of_all) in second.phrases.items():
        before = phrases.get(phrase, (0, 0))
        phrases[phrase] = (before[0] + right, before[1] + of_all)
    return Obeyed(first.commands, matrix, phrases)
