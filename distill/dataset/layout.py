"""Where things are in a LeRobotDataset v3.0 folder, and what its info.json says. No arrays, no Parquet.

The format, after lerobot 0.4.4 (`lerobot/datasets/utils.py`):

    meta/info.json                                  features, rate, totals, sizes
    meta/stats.json                                 statistics of all frames
    meta/tasks.parquet, meta/subtasks.parquet       instructions and their numbers
    meta/episodes/chunk-000/file-000.parquet        one row an episode: length, file, place, statistics
    data/chunk-000/file-000.parquet                 one row a frame, many episodes a file

Ours beside LeRobot's features: the simulator's state before each action, and which seed and world an episode is of.
Their names begin with "simulator.", so no policy of LeRobot takes them for an input.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rl.record import read_json
from tasks.errors import UserError, did_you_mean

VERSION = "v3.0"
INFO, STATS = "meta/info.json", "meta/stats.json"
TASKS, SUBTASKS = "meta/tasks.parquet", "meta/subtasks.parquet"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
CHUNK_FILES = 1000
"""Files in a chunk's folder."""
FILE_SIZE_MB = 100
"""Size that a data file does not grow over, in MiB."""
VIDEO_FILE_SIZE_MB = 200
"""LeRobot's limit of video files; there are none."""

STATE, ACTION = "observation.state", "action"
QPOS, QVEL, SEED, WORLD = "simulator.qpos", "simulator.qvel", "simulator.seed", "simulator.world"
EXECUTED = "simulator.action"
"""The action that was carried out, where it is not the one that is to be learnt."""
DONE, TRUNCATED = "next.done", "next.truncated"
TASK_INDEX, SUBTASK_INDEX = "task_index", "subtask_index"
DTYPES = ("float32", "float64", "int64", "bool")


@dataclass(frozen=True)
class Feature:
    """One column of the frames."""

    dtype: str
    """NumPy's name of the type; LeRobot's "video" and "image" are read past."""
    shape: tuple[int, ...]
    """Of one frame; (1,) is stored as a plain number."""
    names: tuple[str, ...] | None = None
    """Names of the numbers, where they have any."""

    def to_json(self) -> dict[str, Any]:
        """As info.json has it."""
        return {"dtype": self.dtype, "shape": list(self.shape), "names": self.names and list(self.names)}


INDEX_FEATURES: dict[str, Feature] = {
    "timestamp": Feature("float32", (1,)),
    "frame_index": Feature("int64", (1,)),
    "episode_index": Feature("int64", (1,)),
    "index": Feature("int64", (1,)),
    TASK_INDEX: Feature("int64", (1,)),
}
"""Columns that every dataset has and its writer fills in."""
ORIGIN_FEATURES: dict[str, Feature] = {SEED: Feature("int64", (1,)), WORLD: Feature("int64", (1,))}
"""Columns that our writer fills in: which episode of which simulation this is."""


@dataclass(frozen=True)
class DatasetSpec:
    """What a dataset is to hold."""

    robot_type: str
    """The body: name of the embodiment."""
    fps: float
    """Frames a second: the rate of control."""
    features: Mapping[str, Feature]
    """Columns that an episode brings, `STATE` and `ACTION` among them; the writer adds the others."""
    subtasks: bool = False
    """Whether episodes bring a subtask for each frame."""

    def __post_init__(self) -> None:
        if not self.robot_type or not math.isfinite(self.fps) or not self.fps > 0:
            raise UserError(
                f"dataset: robot_type is {self.robot_type!r} and fps {self.fps!r}; expected a name and a rate above 0."
            )
        for name in (STATE, ACTION):
            if name not in self.features:
                raise UserError(f"dataset: there is no feature '{name}'.{did_you_mean(name, self.features)}")
        for name, feature in self.features.items():
            if name in {**INDEX_FEATURES, **ORIGIN_FEATURES, SUBTASK_INDEX: None} or "/" in name or not name:
                raise UserError(f"dataset: a feature cannot be named '{name}'; the name is taken, or has a '/'.")
            if feature.dtype not in DTYPES or len(feature.shape) != 1 or feature.shape[0] < 1:
                raise UserError(
                    f"dataset: feature '{name}' is {feature.dtype} {feature.shape}; expected one of "
                    f"{', '.join(DTYPES)} and a shape (n,)."
                )

    def all_features(self) -> dict[str, Feature]:
        """Every column of the files, in their order."""
        subtask = {SUBTASK_INDEX: Feature("int64", (1,))} if self.subtasks else {}
        return {**self.features, **ORIGIN_FEATURES, **INDEX_FEATURES, **subtask}


@dataclass(frozen=True)
class Info:
    """Content of meta/info.json, as far as it is used."""

    robot_type: str | None
    """The body."""
    fps: float
    """Frames a second."""
    features: Mapping[str, Feature]
    """All columns."""
    total_episodes: int = 0
    """Episodes in it."""
    total_frames: int = 0
    """Frames in it."""
    total_tasks: int = 0
    """Instructions in it."""
    chunks_size: int = CHUNK_FILES
    """Files in a chunk's folder."""
    data_files_size_in_mb: float = FILE_SIZE_MB
    """Size that a data file does not grow over."""
    data_path: str = field(default=DATA_PATH)
    """Where data files are, with {chunk_index} and {file_index}."""

    def to_json(self) -> dict[str, Any]:
        """As LeRobot writes it."""
        return {
            "codebase_version": VERSION,
            "robot_type": self.robot_type,
            "total_episodes": self.total_episodes,
            "total_frames": self.total_frames,
            "total_tasks": self.total_tasks,
            "chunks_size": self.chunks_size,
            "data_files_size_in_mb": self.data_files_size_in_mb,
            "video_files_size_in_mb": VIDEO_FILE_SIZE_MB,
            "fps": self.fps,
            "splits": {"train": f"0:{self.total_episodes}"},
            "data_path": self.data_path,
            "video_path": None,
            "features": {name: feature.to_json() for name, feature in self.features.items()},
        }

    def data_file(self, chunk_index: int, file_index: int) -> str:
        """Path of a data file below the dataset's folder."""
        try:
            return self.data_path.format(chunk_index=chunk_index, file_index=file_index)
        except (KeyError, IndexError, ValueError, AttributeError):
            raise UserError(f"{INFO}: data_path is {self.data_path!r}, expected something like {DATA_PATH}.") from None


def frame_rate(control_dt_s: float) -> float:
    """Frames a second of a control period, a whole number where it is one."""
    rate = 1.0 / control_dt_s
    return round(rate) if abs(rate - round(rate)) < 1e-6 * rate else rate


def next_file(chunk_index: int, file_index: int, chunks_size: int) -> tuple[int, int]:
    """The place of the file after this one."""
    return (chunk_index, file_index + 1) if file_index + 1 < chunks_size else (chunk_index + 1, 0)


def read_info(root: Path) -> Info:
    """What the dataset in a folder says of itself.

    Raises:
        UserError: there is no dataset, it has another version, or info.json is damaged.
    """
    path = root / INFO
    if not path.is_file():
        siblings = [entry.name for entry in root.parent.iterdir()] if root.parent.is_dir() else []
        what = "holds no dataset" if root.is_dir() else "does not exist"
        hint = "" if root.is_dir() else did_you_mean(root.name, siblings)
        raise UserError(f"{root} {what}; expected the folder of a LeRobotDataset, with {INFO}.{hint}")
    data = read_json(path)
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected an object with fields, got {type(data).__name__}.")
    version = data.get("codebase_version")
    if version != VERSION:
        raise UserError(f"{path}: LeRobot format {version!r}, expected '{VERSION}'.{_convert(version)}")
    for name, kinds in _FIELDS.items():
        value = data.get(name)
        if not isinstance(value, kinds) or isinstance(value, bool) or (isinstance(value, int) and value < 0):
            raise UserError(f"{path}: {name} is {value!r:.80}; the file is damaged, or no LeRobotDataset's.")
    if not math.isfinite(data["fps"]) or not data["fps"] > 0 or data["chunks_size"] < 1:
        raise UserError(f"{path}: fps is {data['fps']}, chunks_size {data['chunks_size']}; expected more than 0.")
    return Info(
        **{name: data[name] for name in _FIELDS if name != "features"},
        features={name: _feature(path, name, entry) for name, entry in data["features"].items()},
    )


def first_difference(wanted: Mapping[str, Feature], found: Mapping[str, Feature]) -> str | None:
    """One sentence on where two tables of features differ; None where they do not."""
    for name, feature in wanted.items():
        if name not in found:
            return f"it has no '{name}'"
        if (feature.dtype, feature.shape) != (found[name].dtype, found[name].shape):
            there, here = (f"{f.dtype} {list(f.shape)}" for f in (found[name], feature))
            return f"its '{name}' is {there}, not {here}"
    extra = [name for name in found if name not in wanted]
    return f"it has '{extra[0]}' besides" if extra else None


def names_or_none(names: Iterable[str]) -> tuple[str, ...] | None:
    """Names of a feature's numbers, if every number has one of its own."""
    names = tuple(names)
    return names if all(names) and len(set(names)) == len(names) else None


def _feature(path: Path, name: str, entry: Any) -> Feature:
    shape = entry.get("shape") if isinstance(entry, dict) else None
    if not isinstance(shape, list) or not all(isinstance(n, int) for n in shape) or "dtype" not in entry:
        raise UserError(f"{path}: feature '{name}' is {entry!r:.80}; expected dtype and shape.")
    names = entry.get("names")
    flat = isinstance(names, list) and all(isinstance(n, str) for n in names)
    return Feature(str(entry["dtype"]), tuple(shape), tuple(names) if flat else None)


def _convert(version: Any) -> str:
    if isinstance(version, str) and version.startswith("v2"):
        return " Convert it with lerobot's script: python -m lerobot.datasets.v30.convert_dataset_v21_to_v30"
    return " It is from another version of LeRobot."


_FIELDS: dict[str, Any] = {
    "robot_type": str | None, "fps": int | float, "features": dict, "total_episodes": int, "total_frames": int,
    "total_tasks": int, "chunks_size": int, "data_files_size_in_mb": int | float, "data_path": str,
}  # fmt: skip
"""Field of info.json -> its type."""
