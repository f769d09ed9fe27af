"""Runs as demonstrations: each control step of a body, with the goal as its task and what was in force as its subtask.

The state is what a policy sees that is told by words, so that a head can be trained on tours beside other episodes: a
chunk of actions ends where the words change (`distill.dataset.windows`). Pictures are not in it.

Axes: T steps, O observation, A action.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from distill.dataset.episode import Episode, Origin
from distill.dataset.layout import (
    ACTION,
    DONE,
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
from tasks.env import EnvStep, TaskEnv


class Tape:
    """The steps of one body's run."""

    def __init__(self) -> None:
        self._rows: dict[str, list[np.ndarray]] = {name: [] for name in (STATE, ACTION, QPOS, QVEL, DONE, TRUNCATED)}
        self._words: list[str] = []

    def __len__(self) -> int:
        return len(self._words)

    def before(self, env: TaskEnv, words: str, actions: Tensor) -> None:
        """Note what is seen, told and done in a step that is about to be taken; actions: (1, A)."""
        rows = {STATE: env.observe_told(), ACTION: actions.clamp(-1.0, 1.0), QPOS: env.sim.qpos, QVEL: env.sim.qvel}
        for name, tensor in rows.items():
            self._rows[name].append(tensor[0].cpu().numpy().astype(np.float32))  # a copy: the step changes it
        self._words.append(words)

    def after(self, step: EnvStep) -> None:
        """Note how it ended."""
        self._rows[DONE].append(step.done[0].cpu().numpy())
        self._rows[TRUNCATED].append(step.truncated[0].cpu().numpy())

    def episode(self, goal: str, origin: Origin) -> Episode:
        """The run so far as an episode. Its last step is its end, also where the runtime ended it and not the task."""
        columns = {name: np.stack(rows) for name, rows in self._rows.items()}
        columns[TRUNCATED][-1] |= not columns[DONE][-1]
        columns[DONE][-1] = True
        return Episode(columns, goal, origin, subtasks=list(self._words))


def tour_dataset(folder: Path, env: TaskEnv, robot_type: str) -> DatasetWriter:
    """A dataset for tapes of a body named `robot_type`, begun or gone on with. Raises UserError like DatasetWriter."""
    model = env.sim.model
    actuators = names_or_none(model.actuator(number).name for number in range(model.nu))
    features = {
        STATE: Feature("float32", (int(env.observe_told().shape[1]),)),
        ACTION: Feature("float32", (env.num_actions,), actuators),
        QPOS: Feature("float32", (int(model.nq),)),
        QVEL: Feature("float32", (int(model.nv),)),
        DONE: Feature("bool", (1,)),
        TRUNCATED: Feature("bool", (1,)),
    }
    spec = DatasetSpec(robot_type, frame_rate(env.task.control_dt_s), features, subtasks=True)
    return DatasetWriter(folder, spec)
