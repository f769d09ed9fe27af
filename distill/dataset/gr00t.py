"""A dataset as GR00T N1.5 reads it: LeRobot's format v2.1, one file an episode, and meta/modality.json.

After NVIDIA's Isaac-GR00T (`getting_started/LeRobot_compatible_data_schema.md`, `gr00t/data/dataset.py`):

- modality.json names slices of the state and of the action; ours has one of each, "body", or what the caller gives.
- An annotation is a column of numbers into tasks.jsonl. Its two usual names both point at task_index here.
- stats.json has exactly min, max, mean, std, q01 and q99 of each feature, over all frames: the loader takes every
  statistic for a vector of the feature's size and slices it, so LeRobot's "count" would break it.
- State and action are lists also where they have one number: the loader wants two axes.

There are no videos. GR00T's own data configs ask for a camera, so training on an export needs a config without one, or
videos added to it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill.dataset import parquet
from distill.dataset.layout import ACTION, DONE, INDEX_FEATURES, STATE, TASK_INDEX, Feature
from distill.dataset.reader import EpisodeDataset
from distill.dataset.statistics import episode_statistics
from rl.record import write_atomic
from tasks.errors import UserError

DATA_PATH = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
CHUNK_EPISODES = 1000
WHOLE = "body"
"""Name of the one slice of state and action, where none are given."""
ANNOTATIONS = ("human.task_description", "human.action.task_description")
"""Names under which GR00T's data configs look for the instruction."""
_QUANTILES = {"q01": 0.01, "q99": 0.99}
_EPISODE_STATISTICS = ("min", "max", "mean", "std", "count")
"""What LeRobot v2.1 keeps for each episode."""

Slices = Mapping[str, tuple[int, int]]
"""Name -> first number, and the one after the last."""


@dataclass(frozen=True)
class Export:
    """What was written."""

    path: Path
    """The folder."""
    episodes: int
    """Episodes in it."""
    frames: int
    """Frames in it."""
    bytes: int
    """Size of its data files."""


def export_gr00t(
    dataset: EpisodeDataset, out: Path, *, state: Slices | None = None, action: Slices | None = None
) -> Export:
    """Write a dataset anew into the folder `out`, which appears when it is complete.

    Args:
        dataset: What to export.
        out: A new folder.
        state: Slices of the observation; one of all where not given.
        action: Slices of the action, likewise.

    Raises:
        UserError: `out` exists or cannot be written, a slice is out of range, or the dataset is damaged.
    """
    out = Path(out)
    if out.exists():
        raise UserError(f"{out} exists already; choose a new folder.")
    modality = {
        "state": _slices(state, dataset.state_size, "state"),
        "action": _slices(action, dataset.action_size, "action"),
        "video": {},
        "annotation": {name: {"original_key": TASK_INDEX} for name in ANNOTATIONS},
    }
    kept = [STATE, ACTION, *INDEX_FEATURES, *([DONE] if DONE in dataset.info.features else [])]
    partial = out.with_name(f".{out.name}.part")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        (partial / "meta").mkdir(parents=True)
        size = _write_episodes(dataset, partial, kept)
        tasks = ({"task_index": number, "task": text} for number, text in enumerate(dataset.tasks))
        _write_lines(partial / "meta/tasks.jsonl", tasks)
        _write_json(partial / "meta/stats.json", _statistics(dataset))
        _write_json(partial / "meta/modality.json", modality)
        _write_json(partial / "meta/info.json", _info(dataset, kept))
        partial.rename(out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; nothing was exported.") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Export(out, dataset.num_episodes, dataset.num_frames, size)


def _write_episodes(dataset: EpisodeDataset, root: Path, kept: list[str]) -> int:
    """One data file an episode, their list and their statistics. Returns the bytes of the data files."""
    size, rows, statistics = 0, [], []
    for number in range(dataset.num_episodes):
        columns = dataset.episode(number)
        columns = {name: _stored(name, columns[name]) for name in kept}
        path = root / DATA_PATH.format(episode_chunk=number // CHUNK_EPISODES, episode_index=number)
        path.parent.mkdir(parents=True, exist_ok=True)
        data = parquet.encode(columns)
        path.write_bytes(data)  # the folder gets its name when all is there
        size += len(data)
        rows.append({"episode_index": number, "tasks": list(dataset.rows.tasks[number]), "length": len(columns[STATE])})
        found = episode_statistics(columns)
        plain = {n: {key: s[key].tolist() for key in _EPISODE_STATISTICS} for n, s in found.items()}
        statistics.append({"episode_index": number, "stats": plain})
    _write_lines(root / "meta/episodes.jsonl", rows)
    _write_lines(root / "meta/episodes_stats.jsonl", statistics)
    return size


def _stored(name: str, column: np.ndarray) -> np.ndarray:
    return column.astype(np.float32) if name in (STATE, ACTION) else column[:, 0]


def _statistics(dataset: EpisodeDataset) -> dict[str, dict[str, list[float]]]:
    """Over all frames, exactly; a column at a time, since all of them may not fit into memory."""
    found = {}
    for name, frames in ((STATE, dataset.frames.state), (ACTION, dataset.frames.action)):
        columns = [_column_statistics(np.asarray(frames[:, n], dtype=np.float64)) for n in range(frames.shape[1])]
        found[name] = {key: [column[key] for column in columns] for key in columns[0]}
    return found


def _column_statistics(values: np.ndarray) -> dict[str, float]:
    basic = {"mean": values.mean(), "std": values.std(), "min": values.min(), "max": values.max()}
    quantiles = dict(zip(_QUANTILES, np.quantile(values, list(_QUANTILES.values())), strict=True))
    return {key: float(value) for key, value in {**basic, **quantiles}.items()}


def _slices(given: Slices | None, size: int, what: str) -> dict[str, dict[str, int]]:
    found = {}
    for name, (start, end) in (given or {WHOLE: (0, size)}).items():
        if not 0 <= start < end <= size:
            raise UserError(f"{what} slice '{name}' is {start} to {end}; expected a part of 0 to {size}.")
        found[name] = {"start": start, "end": end}
    return found


def _info(dataset: EpisodeDataset, kept: list[str]) -> dict[str, Any]:
    count = dataset.num_episodes
    features = {name: INDEX_FEATURES.get(name) or dataset.info.features[name] for name in kept}
    for name in (STATE, ACTION):
        features[name] = Feature("float32", features[name].shape, features[name].names)
    return {
        "codebase_version": "v2.1",
        "robot_type": dataset.info.robot_type,
        "total_episodes": count,
        "total_frames": dataset.num_frames,
        "total_tasks": len(dataset.tasks),
        "total_videos": 0,
        "total_chunks": -(-count // CHUNK_EPISODES),
        "chunks_size": CHUNK_EPISODES,
        "fps": dataset.info.fps,
        "splits": {"train": f"0:{count}"},
        "data_path": DATA_PATH,
        "video_path": None,
        "features": {name: feature.to_json() for name, feature in features.items()},
    }


def _write_json(path: Path, data: Any) -> None:
    write_atomic(path, (json.dumps(data, indent=1, allow_nan=False) + "\n").encode())


def _write_lines(path: Path, rows: Iterable[Any]) -> None:
    write_atomic(path, b"".join(_lines(rows)))


def _lines(rows: Iterable[Any]) -> Iterator[bytes]:
    for row in rows:
        yield (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode()
