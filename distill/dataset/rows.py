"""The rows of meta/episodes: where each episode lies, what it is, and its statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill.dataset import parquet
from distill.dataset.episode import Origin
from distill.dataset.layout import EPISODES_PATH, Info
from distill.dataset.statistics import NAMES, Statistics, aggregate
from tasks.errors import UserError

_DATA, _META = ("data/chunk_index", "data/file_index"), ("meta/episodes/chunk_index", "meta/episodes/file_index")
_NUMBERS = ("episode_index", "length", *_DATA, "dataset_from_index", "dataset_to_index")
_ORIGIN = ("source", "seed", "world", "fitness")
"""Columns of ours; LeRobot reads past them."""


@dataclass(frozen=True)
class EpisodeRows:
    """All E episodes of a dataset."""

    length: np.ndarray
    """(E,) frames."""
    start: np.ndarray
    """(E,) number of the first frame in the whole dataset."""
    place: tuple[tuple[int, int], ...]
    """Chunk and file of each episode's data."""
    tasks: tuple[tuple[str, ...], ...]
    """Instructions of each episode."""
    origins: tuple[Origin, ...] | None
    """Where each comes from; None where a dataset does not say."""

    def __len__(self) -> int:
        return len(self.length)


def make_row(
    number: int, begin: int, end: int, place: tuple[int, int], tasks: list[str], origin: Origin, statistics: Statistics
) -> dict[str, Any]:
    """The row of episode `number`, whose frames are [begin, end) of the dataset, in file `place`."""
    values = (number, end - begin, *place, begin, end)
    row: dict[str, Any] = dict(zip(_NUMBERS, values, strict=True)) | {"tasks": tasks}
    row |= {name: getattr(origin, name) for name in _ORIGIN}
    row |= {f"stats/{name}/{key}": value for name, stats in statistics.items() for key, value in stats.items()}
    return row | dict(zip(_META, place, strict=True))


def encode_rows(rows: list[dict[str, Any]]) -> bytes:
    """Rows as an episodes' file."""
    columns: dict[str, Any] = {}
    for name, first in rows[0].items():
        values = [row[name] for row in rows]
        columns[name] = values if isinstance(first, str | list) else np.array(values)
    return parquet.encode(columns)


def read_rows(root: Path, info: Info) -> EpisodeRows:
    """The episodes that info.json counts.

    Raises:
        UserError: a file is missing or damaged, or rows, files and info.json disagree.
    """
    data: dict[str, list[Any]] = {name: [] for name in (*_NUMBERS, "tasks", *_ORIGIN)}
    own = True
    for path in _files(root, info):
        own = own and set(_ORIGIN) <= set(parquet.columns_of(path))
        names = [name for name in data if own or name not in _ORIGIN]
        found = parquet.read(path, names)
        for name in names:
            data[name].extend(found[name] if isinstance(found[name], list) else found[name].tolist())
    count = info.total_episodes
    if data["episode_index"][:count] != list(range(count)):
        raise UserError(
            f"{root}: meta/info.json counts {count} episodes, meta/episodes has {len(data['episode_index'])}; files "
            "are missing, or from another copy."
        )
    column = {name: np.array(data[name][:count], dtype=np.int64) for name in _NUMBERS}
    start, end = column["dataset_from_index"], column["dataset_to_index"]
    bounds = np.concatenate([[0], np.cumsum(column["length"])])
    if (column["length"] < 1).any() or (start != bounds[:-1]).any() or (end != bounds[1:]).any():
        raise UserError(f"{root}: lengths and places of episodes in meta/episodes disagree; the dataset is damaged.")
    if bounds[-1] != info.total_frames:
        raise UserError(
            f"{root}: meta/info.json counts {info.total_frames} frames, its {count} episodes have {bounds[-1]}."
        )
    facts = zip(*(data[name][:count] for name in _ORIGIN), strict=True) if own else ()
    return EpisodeRows(
        length=column["length"],
        start=start,
        place=tuple(zip(*(column[name].tolist() for name in _DATA), strict=True)),
        tasks=tuple(tuple(texts) for texts in data["tasks"][:count]),
        origins=tuple(Origin(*fact) for fact in facts) if own else None,
    )


def read_statistics(root: Path, info: Info) -> Statistics:
    """Statistics of all episodes that info.json counts, from their rows. UserError where rows have none."""
    names = {f"stats/{name}/{key}": (name, key) for name in info.features for key in NAMES}
    left, files = info.total_episodes, []
    for path in _files(root, info):
        found = parquet.read(path, list(names))
        count = min(left, len(next(iter(found.values()))))
        left -= count
        rows: list[Statistics] = [{name: {} for name in info.features} for _ in range(count)]
        for column, (name, key) in names.items():
            for row, value in zip(rows, found[column], strict=False):
                row[name][key] = value
        if rows:
            files.append(aggregate(rows))
    return aggregate(files)


def _files(root: Path, info: Info) -> list[Path]:
    """Episodes' files in their order."""
    files = sorted(root.glob(EPISODES_PATH.format(chunk_index=0, file_index=0).replace("000", "*")))
    if info.total_episodes and not files:
        raise UserError(f"{root}: meta/info.json counts {info.total_episodes} episodes, meta/episodes is missing.")
    return files


def plain(statistics: Statistics) -> Mapping[str, Mapping[str, Any]]:
    """Statistics as lists, for JSON."""
    return {name: {key: value.tolist() for key, value in entry.items()} for name, entry in statistics.items()}
