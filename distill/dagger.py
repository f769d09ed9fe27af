"""The data of a distillation: what experts play for cloning, and rounds in which the student plays (DAgger).

In a round the student acts and the expert labels every state that it comes to (Ross et al. 2011, arXiv 1011.0686);
rounds are added to each other and none is forgotten. Of the first round the expert has a part, in stretches of half a
second, so that a student that falls at once still sees how it goes on; from the second round on the student is alone.

An expert gives one action for a state, a chunk needs the next ones as well. They are the expert's actions in the states
that were visited next, under the student's actions: the chunk's first action is what the expert does, exactly; a later
one is what it does after a student's step instead of its own, and differs from its own chunk by as much as the student
differs from it, which vanishes as the student learns. Branching the simulation off for the expert's own H steps would
be exact for the others too, at H times the physics; bodies that are run blind for many actions might want it.

Of the expert's own episodes every second one is disturbed by noise (DART, arXiv 1703.09327), and its labels are not.

Each task and round is a dataset (`distill.dataset`), with a report beside it that is written last.

Axes: N worlds, A action.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.collect import CarryOut, CollectConfig, collect, dataset_spec
from distill.dataset.reader import EpisodeDataset
from distill.dataset.writer import DatasetWriter
from distill.experts import Expert
from distill.generalist import Actor
from distill.told import told_words
from distill.train_config import DistillConfig
from rl.config import complete_fields
from rl.record import read_json, write_json_atomic
from tasks.env import TaskEnv, make_env
from tasks.errors import UserError

STRETCH_S = 0.5
"""Seconds after which it is drawn anew who acts, where expert and student share a round. Chosen here: longer than a
chunk, so that most labels within an expert's stretch are exact, shorter than a fall."""


@dataclass(frozen=True)
class Played:
    """What came of one task in one round."""

    task: str
    round: int
    """0: the expert's own episodes."""
    player: str
    """Whose fitness it is: expert, student, or both where they took turns."""
    episodes: int
    """Episodes recorded."""
    frames: int
    """States labelled."""
    fitness: float
    """Mean fitness of the episodes that no noise disturbed, in the task's unit, on the seeds of the training."""
    fitness_std: float
    """Their standard deviation."""


class Disturbed:
    """The expert's actions, with noise in every second world."""

    def __init__(self, std: float, seed: int) -> None:
        """std: of the noise, in units of an action."""
        self._std, self._generator = std, torch.Generator().manual_seed(seed)

    def __call__(self, env: TaskEnv, wanted: Tensor) -> Tensor:
        """Actions to carry out (N, A)."""
        noise = self._std * torch.randn(wanted.shape, generator=self._generator)
        noise[::2] = 0.0
        return wanted + noise.to(wanted.device)


class TakingTurns:
    """The student's actions, and the expert's for a share of the time."""

    def __init__(self, student: Actor, expert_share: float, seed: int) -> None:
        """expert_share: from 0 to 1."""
        self._student, self._share = student, expert_share
        self._generator = torch.Generator().manual_seed(seed)
        self._expert: Tensor | None = None  # (N,) bool: where the expert acts

    def __call__(self, env: TaskEnv, wanted: Tensor) -> Tensor:
        """Actions to carry out (N, A). The student looks at every state, also where it does not act."""
        actions = self._student.act(env).to(wanted.device)
        if not self._share:
            return actions
        drawn = (torch.rand(env.num_envs, generator=self._generator) < self._share).to(wanted.device)
        stretch = max(1, round(STRETCH_S / env.task.control_dt_s))
        self._expert = (
            drawn if self._expert is None else torch.where(env.episode_step % stretch == 0, drawn, self._expert)
        )
        return torch.where(self._expert[:, None], wanted, actions)


def round_folder(data: Path, task: str, number: int) -> Path:
    """Where the dataset of a task's round is; its report is beside it, with .json."""
    return data / task / f"round_{number:02d}"


def play(
    expert: Expert,
    embodiment: str,
    number: int,
    config: DistillConfig,
    data: Path,
    make_student: Callable[[int], Actor] | None = None,
) -> Played:
    """Play a round of a task, or read the report of one that was played.

    Args:
        expert: Plays in round 0, labels in all others.
        embodiment: The body.
        number: The round.
        config: How much, and of what.
        data: Folder of all data.
        make_student: A seed to the student that acts in rounds from 1 on.

    Raises:
        UserError: the folder holds something else, the disk refuses, or every simulation diverged.
    """
    folder = round_folder(data, expert.task.name, number)
    report = folder.with_suffix(".json")
    if report.exists():
        return _read_report(report)
    seed = _seed(config.seed, number, expert.task.name)
    carry_out: CarryOut
    if number == 0:
        episodes, share = config.episodes, 1.0
        carry_out = Disturbed(config.clone_noise_std, seed)
    else:
        assert make_student is not None, "a round from 1 on is the student's"
        episodes, share = config.round_episodes, config.expert_share if number == 1 else 0.0
        carry_out = TakingTurns(make_student(seed), share, seed)
    settings = CollectConfig(
        episodes=episodes, num_envs=episodes, max_rounds=1, seed=config.seed, num_threads=config.threads
    )
    env = make_env(expert.task, 1, num_threads=1)
    spec = dataset_spec(env, embodiment, settings, _told, disturbed=True)
    env.close()
    with DatasetWriter(folder, spec) as writer:
        source = f"{expert.source} round {number}"
        collect(expert.task, expert.policy, writer, settings, source=source, record=_told, instruct=told_words,
                carry_out=carry_out)  # fmt: skip
    dataset = EpisodeDataset(folder)
    clean = [one.fitness for one in dataset.origins or () if number or one.world % 2 == 0 or not config.clone_noise_std]
    played = Played(
        task=expert.task.name,
        round=number,
        player="expert" if share == 1.0 else "both" if share else "student",
        episodes=dataset.num_episodes,
        frames=dataset.num_frames,
        fitness=float(np.mean(clean)) if clean else math.nan,
        fitness_std=float(np.std(clean)) if clean else math.nan,
    )
    write_json_atomic(report, dataclasses.asdict(played))
    return played


def _told(env: TaskEnv, observation: Tensor) -> Tensor:
    """What the student is shown."""
    return env.observe_told()


def _seed(seed: int, number: int, task: str) -> int:
    return int(np.random.SeedSequence([seed, number, zlib.crc32(task.encode())]).generate_state(1)[0])


def _read_report(path: Path) -> Played:
    values: dict[str, Any] = complete_fields(read_json(path), Played, str(path))
    for name in ("fitness", "fitness_std"):
        values[name] = float(values[name])  # "nan" where no episode was left
    return Played(**values)


def open_round(data: Path, task: str, number: int) -> EpisodeDataset:
    """The dataset of a task's round. Raises UserError where it is damaged."""
    folder = round_folder(data, task, number)
    if not folder.is_dir():
        raise UserError(f"{folder} is gone; start the distillation anew, or bring it back.")
    return EpisodeDataset(folder)
