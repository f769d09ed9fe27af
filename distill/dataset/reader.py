"""Reads a LeRobotDataset v3.0: ours, or another with the same features; what is filmed is read past.

Opening reads what stands in meta/. The frames that a training needs are decoded once, when they are first asked for,
into memory-mapped files without a name: any of them can then be reached at once, they leave memory when it is short,
and there is no cache that could be out of date. They need as much room in the folder for temporary files (TMPDIR).

Nothing is ever written into the dataset. A writer may be at work meanwhile: what it sealed before the dataset was
opened is seen.

Axes: E episodes, F frames, O observation, A action, B batch, T history, H action horizon.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from distill.dataset import parquet
from distill.dataset.episode import Origin
from distill.dataset.layout import ACTION, STATE, SUBTASK_INDEX, SUBTASKS, TASK_INDEX, TASKS, read_info
from distill.dataset.rows import read_rows
from tasks.errors import UserError


@dataclass(frozen=True)
class Frames:
    """All F frames of a dataset, as a training needs them."""

    state: np.ndarray
    """(F, O) float32, memory-mapped, not to be written to."""
    action: np.ndarray
    """(F, A) float32, likewise."""
    task: np.ndarray
    """(F,) number of each frame's instruction."""
    subtask: np.ndarray
    """(F,) number of its subtask, -1 where there are none."""
    episode_start: np.ndarray
    """(F,) first frame of the frame's episode."""
    words_stop: np.ndarray
    """(F,) the frame after the last one of the same episode with the same words, instruction and subtask: what
    is done beyond it obeys other words."""


class EpisodeDataset:
    """A dataset, opened."""

    def __init__(self, root: Path) -> None:
        """Read what stands in meta/.

        Raises:
            UserError: there is no dataset, it has another version or other features, or meta/ is damaged or empty.
        """
        self.root = Path(root)
        self.info = read_info(self.root)
        if not self.info.total_episodes:
            raise UserError(f"{self.root} holds no episodes yet.")
        for name in (STATE, ACTION):
            feature = self.info.features.get(name)
            if feature is None or len(feature.shape) != 1 or feature.dtype not in ("float32", "float64"):
                found = "none" if feature is None else f"{feature.dtype} {list(feature.shape)}"
                raise UserError(f"{self.root}: needs a feature '{name}' of numbers (n,); it has {found}.")
        self.rows = read_rows(self.root, self.info)
        self.tasks = parquet.read_names(self.root / TASKS, TASK_INDEX)
        """Instructions by their number."""
        described = SUBTASK_INDEX in self.info.features and (self.root / SUBTASKS).is_file()
        self.subtasks = parquet.read_names(self.root / SUBTASKS, SUBTASK_INDEX) if described else ()
        """Subtasks by their number; none where the dataset has none."""

    @property
    def num_episodes(self) -> int:
        """E."""
        return self.info.total_episodes

    @property
    def num_frames(self) -> int:
        """F."""
        return self.info.total_frames

    @property
    def state_size(self) -> int:
        """O."""
        return self.info.features[STATE].shape[0]

    @property
    def action_size(self) -> int:
        """A."""
        return self.info.features[ACTION].shape[0]

    @property
    def origins(self) -> tuple[Origin, ...] | None:
        """Where each episode comes from; None in a dataset that does not say."""
        return self.rows.origins

    def require_sizes(self, embodiment: str, state_size: int, action_size: int) -> None:
        """Raise UserError unless observations and actions have the sizes of an embodiment."""
        for what, size, wanted in (("observations", self.state_size, state_size),
                                   ("actions", self.action_size, action_size)):  # fmt: skip
            if size != wanted:
                raise UserError(
                    f"{self.root}: its {what} have {size} numbers, those of embodiment '{embodiment}' {wanted}; it "
                    f"is of '{self.info.robot_type}'."
                )

    def frame(self, episode: int, step: int) -> int:
        """Number of a step's frame in the whole dataset. Raises IndexError where there is none."""
        if not 0 <= episode < self.num_episodes or not 0 <= step < self.rows.length[episode]:
            raise IndexError(f"there is no step {step} of episode {episode}")
        return int(self.rows.start[episode]) + step

    def episode(self, number: int) -> dict[str, Any]:
        """All columns of one episode: (T, n) each, vectors of one number too. UserError if its file is damaged."""
        first = self.frame(number, 0)
        place = self.rows.place[number]
        offset = first - int(self.rows.start[self.rows.place.index(place)])
        path = self.root / self.info.data_file(*place)
        stored = {name: f for name, f in self.info.features.items() if f.dtype not in ("video", "image")}
        columns = parquet.read(path, list(stored), offset, offset + int(self.rows.length[number]))
        if (columns["episode_index"] != number).any() or len(columns["episode_index"]) != self.rows.length[number]:
            raise UserError(f"{path}: episode {number} is not where meta/episodes says; the dataset is damaged.")
        vectors = {name for name in stored if isinstance(columns[name], np.ndarray)}
        return {name: c.reshape(len(c), -1) if name in vectors else c for name, c in columns.items()}

    @functools.cached_property
    def frames(self) -> Frames:
        """All frames. UserError if a file is missing, damaged or not what meta/ says, or the room is short."""
        state, action = _Spill(self.state_size), _Spill(self.action_size)
        words: dict[str, list[np.ndarray]] = {TASK_INDEX: [], SUBTASK_INDEX: []}
        try:
            for path, columns in self._files():
                state.add(columns[STATE], f"{path}: '{STATE}'")
                action.add(columns[ACTION], f"{path}: '{ACTION}'")
                for name, parts in words.items():
                    parts.append(columns.get(name, np.full(len(columns[STATE]), -1)))
        except OSError as error:
            raise UserError(
                f"no room for the frames of {self.root} in {tempfile.gettempdir()} ({error.strerror}); set TMPDIR to a "
                "larger disk."
            ) from None
        task, subtask = (np.concatenate(parts) for parts in words.values())
        for numbers, texts, name in ((task, self.tasks, TASK_INDEX), (subtask, self.subtasks, SUBTASK_INDEX)):
            if len(texts) and not 0 <= numbers.min() <= numbers.max() < len(texts):
                raise UserError(f"{self.root}: a {name} is {numbers.max()}, but there are {len(texts)} texts.")
        start = np.repeat(self.rows.start, self.rows.length)
        changes = np.ones(self.num_frames, dtype=bool)
        changes[1:] = (np.diff(start) != 0) | (np.diff(task) != 0) | (np.diff(subtask) != 0)
        first = np.flatnonzero(changes)
        stop = np.append(first[1:], self.num_frames)
        return Frames(state.mapped(), action.mapped(), task, subtask, start, np.repeat(stop, stop - first))

    def _files(self) -> Iterator[tuple[Path, dict[str, np.ndarray]]]:
        """Each data file's columns, cut to the frames that meta/episodes counts."""
        names = [STATE, ACTION, TASK_INDEX, "episode_index", *([SUBTASK_INDEX] if self.subtasks else [])]
        for place, members in groupby(range(self.num_episodes), key=lambda number: self.rows.place[number]):
            numbers = list(members)
            count = int(self.rows.length[numbers].sum())
            path = self.root / self.info.data_file(*place)
            columns = parquet.read(path, names, 0, count)
            if not np.array_equal(columns["episode_index"], np.repeat(numbers, self.rows.length[numbers])):
                raise UserError(
                    f"{path}: expected {count} frames of episodes {numbers[0]} to {numbers[-1]}, found "
                    f"{len(columns['episode_index'])} frames of others; the file is damaged or from another dataset."
                )
            yield path, columns


class _Spill:
    """Rows (F, n) of float32 that are appended to a file without a name and then mapped."""

    def __init__(self, size: int) -> None:
        self._size, self._rows = size, 0
        self._file = tempfile.TemporaryFile(prefix="eureka-dataset-")  # noqa: SIM115 - mapped, then closed

    def add(self, column: np.ndarray, where: str) -> None:
        """Append rows. Raises UserError for another size or a number that is not finite."""
        rows = column.reshape(len(column), -1)
        if rows.shape[1] != self._size:
            raise UserError(f"{where} has {rows.shape[1]} numbers a frame, meta/info.json says {self._size}.")
        if not np.isfinite(rows).all():
            raise UserError(f"{where} holds a number that is not finite.")
        # Not written through the map: on a full disk that would kill the process instead of raising OSError.
        self._file.write(np.ascontiguousarray(rows, dtype=np.float32).data)
        self._rows += len(rows)

    def mapped(self) -> np.ndarray:
        """All rows, (F, n)."""
        with self._file:
            self._file.flush()
            return np.memmap(self._file, dtype=np.float32, mode="r", shape=(self._rows, self._size))
