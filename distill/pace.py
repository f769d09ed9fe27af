"""How many optimiser steps fit into some minutes here: measured once, and from then on a number like any other.

A training by the clock would give another student each time. So steps and playing are timed for some seconds on a
copy of the student, what is left of the time is turned into steps, and those stand in `pace.json`: whoever gives them
as `--set steps=` instead of minutes gets the same student.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distill.clone import Learner
from distill.dataset.windows import Windows
from distill.experts import Expert
from distill.generalist import Actor
from distill.train_config import DistillConfig
from rl.config import complete_fields
from rl.record import read_json, write_json_atomic
from tasks.env import make_env
from tasks.errors import UserError

PACE = "pace.json"
_WARM_STEPS, _TIMED_STEPS = 2, 10
_TIMED_PLAY = 20
"""Control steps of each task that are timed; an episode has hundreds."""


@dataclass(frozen=True)
class Pace:
    """What was measured."""

    steps: int
    """Optimiser steps that fit."""
    step_s: float
    """Seconds of one."""
    round_s: float
    """Seconds in which all tasks are played once by the student, if no episode ends early."""
    left_s: float
    """Seconds that were left for both."""


def find_pace(
    folder: Path,
    left_s: float,
    learner: Learner,
    next_batch: Callable[[], Mapping[str, Windows]],
    experts: Mapping[str, Expert],
    config: DistillConfig,
    threads: int,
) -> Pace:
    """The pace in the folder's pace.json, or a new one, which is written there.

    Args:
        folder: Of the distillation.
        left_s: Seconds that are left.
        learner: The student as it begins; it is not changed.
        next_batch: Batches of its training.
        experts: Embodiment and task as "embodiment/task" -> the expert.
        config: The distillation.
        threads: CPU threads of training.

    Raises:
        UserError: the time does not suffice for playing alone.
    """
    path = folder / PACE
    if path.exists():
        return Pace(**complete_fields(read_json(path), Pace, str(path)))
    trial = Learner(copy.deepcopy(learner.head), copy.deepcopy(learner.encoder), config, threads)
    for _ in range(_WARM_STEPS):
        trial.learn(next_batch())
    began = time.monotonic()
    for _ in range(_TIMED_STEPS):
        trial.learn(next_batch())
    step_s = (time.monotonic() - began) / _TIMED_STEPS
    head, encoder = trial.student()
    round_s = 0.0
    if config.rounds:
        for key, expert in experts.items():
            round_s += _episode_s(expert, Actor(head, encoder, key.partition("/")[0]), config)
    steps = int((left_s - config.rounds * round_s) / step_s)
    if steps < config.rounds + 1:
        raise UserError(
            f"{max(0.0, left_s) / 60:.1f} minutes are left, playing {config.rounds} rounds takes about "
            f"{config.rounds * round_s / 60:.1f}: give more minutes, or fewer rounds."
        )
    pace = Pace(steps, step_s, round_s, left_s)
    write_json_atomic(path, dataclasses.asdict(pace))
    return pace


def _episode_s(expert: Expert, student: Actor, config: DistillConfig) -> float:
    """Seconds of one episode in each world of a round, the student acting and the expert labelling."""
    env: Any = make_env(expert.task, config.round_episodes, num_threads=config.threads)
    try:
        with torch.no_grad():
            env.step(student.act(env))
            began = time.monotonic()
            for _ in range(_TIMED_PLAY):
                expert.policy(env.observe())
                env.step(student.act(env))
            return (time.monotonic() - began) / _TIMED_PLAY * env.max_episode_steps
    finally:
        env.close()
