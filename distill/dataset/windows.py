"""Training examples cut out of a dataset: the observations up to a frame, and the actions from it on.

At an episode's start the history is filled up with its first observation, at the end a chunk with its last action;
masks say which are real. A chunk also ends, by its mask, where the instruction changes: what follows obeys words
that are not in the example.

Axes: B batch, T history (oldest first, the present last), O observation, H action horizon, A action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distill.dataset.reader import EpisodeDataset


@dataclass(frozen=True)
class Windows:
    """B examples of one embodiment."""

    state: Tensor
    """(B, T, O) float32."""
    state_mask: Tensor
    """(B, T) bool: which observations are of the episode; the last always is."""
    actions: Tensor
    """(B, H, A) float32."""
    action_mask: Tensor
    """(B, H) bool: which actions are of the episode and of its instruction; the first always is."""
    instructions: tuple[str, ...]
    """B instructions."""
    subtasks: tuple[str, ...]
    """B subtasks, "" where a dataset has none."""


def cut_windows(dataset: EpisodeDataset, frames: np.ndarray, history: int, horizon: int) -> Windows:
    """Examples at frames (B,) of a dataset; `frames` are numbers as `EpisodeDataset.frame` gives them."""
    data = dataset.frames
    present = np.asarray(frames, dtype=np.int64)[:, None]
    start, stop = data.episode_start[present], data.words_stop[present]
    past = present + np.arange(1 - history, 1)  # (B, T)
    ahead = present + np.arange(horizon)  # (B, H)
    numbers = present[:, 0]
    return Windows(
        state=torch.from_numpy(data.state[np.maximum(past, start)]),
        state_mask=torch.from_numpy(past >= start),
        actions=torch.from_numpy(data.action[np.minimum(ahead, stop - 1)]),
        action_mask=torch.from_numpy(ahead < stop),
        instructions=tuple(dataset.tasks[task] for task in data.task[numbers]),
        subtasks=tuple(dataset.subtasks[subtask] if dataset.subtasks else "" for subtask in data.subtask[numbers]),
    )


def concatenate(parts: Sequence[Windows]) -> Windows:
    """Windows of the same sizes as one."""
    return Windows(
        state=torch.cat([part.state for part in parts]),
        state_mask=torch.cat([part.state_mask for part in parts]),
        actions=torch.cat([part.actions for part in parts]),
        action_mask=torch.cat([part.action_mask for part in parts]),
        instructions=sum((part.instructions for part in parts), ()),
        subtasks=sum((part.subtasks for part in parts), ()),
    )
