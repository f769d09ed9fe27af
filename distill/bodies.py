"""Which tasks share an embodiment, what embodiments are called, and their scales out of what was recorded.

Tasks share one where the body is the same to a policy that is told by words: the same joints and actuators in the same
ranges, the same control rate, and the same observation (`Task.observe_told`), found by asking both tasks about the same
signals. Words then tell them apart, and what one teaches of the body serves the other. Where the rate or the
observation differs, the numbers mean something else, and each has an adapter of its own around the shared trunk.

An embodiment is called after its body's model file or robot; a second one of that body after its first task.

Axes: N worlds, F frames, S state, A action.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.dataset.reader import EpisodeDataset
from distill.embodiments import Embodiment
from distill.normalize import compute_statistics
from distill.train_config import DistillConfig
from tasks.env import make_env, sample_signals
from tasks.errors import UserError
from tasks.task import Task

_WORLDS, _STEPS = 32, 20
"""Of the signals that two tasks are asked about."""


def same_body(first: Task, second: Task) -> bool:
    """Whether one adapter can serve both tasks."""
    if first.control_dt_s != second.control_dt_s or _interface(first) != _interface(second):
        return False
    signals: dict[str, Any] = {}
    for task in (first, second):
        signals |= sample_signals(task, _WORLDS, _STEPS, num_threads=1)
    try:
        seen = [task.observe_told(signals) for task in (first, second)]
    except (RuntimeError, KeyError, IndexError):  # signals of one name but other sizes
        return False
    return seen[0].shape == seen[1].shape and torch.equal(*seen)


def name_embodiments(tasks: Sequence[Task], known: Mapping[str, Task] | None = None) -> dict[str, str]:
    """Task's name -> its embodiment's name.

    Args:
        tasks: What is to be distilled; the order decides who gives a name.
        known: Embodiment of a trained head -> one of its tasks.

    Raises:
        UserError: a task comes twice.
    """
    table = dict(known or {})
    names: dict[str, str] = {}
    for task in tasks:
        if task.name in names:
            raise UserError(f"two experts for task '{task.name}'; expected one for each task: leave one away.")
        found = next((name for name, other in table.items() if same_body(task, other)), None)
        if found is None:
            numbered = (f"{_plain(task.name)}-{number}" for number in count(2))
            found = next(name for name in chain((_body_name(task), _plain(task.name)), numbered) if name not in table)
            table[found] = task
        names[task.name] = found
    return names


def make_embodiment(name: str, task: Task, datasets: Sequence[EpisodeDataset], config: DistillConfig) -> Embodiment:
    """The embodiment of tasks that share a body, with the scales of their datasets.

    Raises UserError for a dataset whose sizes are not the task's.
    """
    env = make_env(task, 1, num_threads=1)
    state_size, action_size = int(env.observe_told().shape[1]), env.num_actions
    env.close()
    for dataset in datasets:
        dataset.require_sizes(name, state_size, action_size)
    body = config.body_of(name)
    return Embodiment(
        name=name,
        state_size=state_size,
        action_size=action_size,
        control_dt_s=task.control_dt_s,
        horizon=body.horizon,
        execute=body.execute,
        history=body.history,
        state_normalization=config.state_normalization,
        action_normalization=config.action_normalization,
        state_statistics=compute_statistics(np.concatenate([dataset.frames.state for dataset in datasets])),
        action_statistics=compute_statistics(np.concatenate([dataset.frames.action for dataset in datasets])),
    )


def _interface(task: Task) -> list[Any]:
    """What a body's actions and positions are."""
    model = task.build_model()
    actuators = [model.actuator(number) for number in range(model.nu)]
    joints = [model.joint(number) for number in range(model.njnt)]
    return [
        [(one.name, one.ctrlrange.tolist(), int(one.trntype[0])) for one in actuators],
        [(one.name, int(one.type[0]), one.range.tolist()) for one in joints],
        float(model.body_mass.sum()),
    ]


def _body_name(task: Task) -> str:
    if task.robot is not None:
        return _plain(task.robot)
    if isinstance(task.xml, Path):
        return _plain(task.xml.stem)
    return _plain(task.name)


def _plain(name: str) -> str:
    """A name as embodiments have them."""
    kept = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in name.lower())
    return kept.strip("-") or "body"
