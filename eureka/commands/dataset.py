"""`eureka dataset`: what is in a dataset of demonstrations; finish an interrupted one; export one for GR00T."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from distill.dataset.gr00t import export_gr00t
from distill.dataset.layout import ACTION, STATE, read_info
from distill.dataset.reader import EpisodeDataset
from distill.dataset.writer import DatasetWriter, waiting_episodes

Place = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
_SHOWN = ("min", "q01", "mean", "std", "q99", "max")
_MOST_ROWS = 24
"""Instructions and numbers of a feature that are printed; JSON has all."""


@dataclass(frozen=True)
class DatasetInfo:
    """Print what is in a dataset: body, episodes, features, instructions, fitness, statistics."""

    directory: Place
    """Folder of a LeRobotDataset v3.0."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        """Read all of it, so that damage shows, and print."""
        found = _describe(EpisodeDataset(self.directory))
        if self.json:
            print(json.dumps(found, indent=1))
        else:
            _print(found)
        return 0


@dataclass(frozen=True)
class Finish:
    """Put the episodes that an interrupted writer had finished into their dataset."""

    directory: Place
    """Folder of a dataset that eureka wrote."""

    def run(self) -> int:
        """Seal what waits."""
        before = read_info(self.directory).total_episodes
        with DatasetWriter.resume(self.directory) as writer:
            count = writer.num_episodes
        print(f"{self.directory}: {count} episodes, {count - before} of them were waiting")
        return 0


@dataclass(frozen=True)
class ExportGr00t:
    """Write a dataset as GR00T N1.5 reads it: LeRobot v2.1 with modality.json, without videos."""

    directory: Place
    """Folder of a LeRobotDataset v3.0."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """The folder to make."""

    def run(self) -> int:
        """Export."""
        done = export_gr00t(EpisodeDataset(self.directory), self.out)
        print(f"{done.path}: {done.episodes} episodes, {done.frames} frames, {done.bytes:,} bytes")
        print("It has no videos: train with a data config that asks for none, or add them.")
        return 0


@dataclass(frozen=True)
class Dataset:
    """Datasets of demonstrations, in the format of LeRobotDataset v3.0."""

    action: tyro.conf.OmitArgPrefixes[
        Annotated[DatasetInfo, tyro.conf.subcommand("info", prefix_name=False)]
        | Annotated[Finish, tyro.conf.subcommand("finish", prefix_name=False)]
        | Annotated[ExportGr00t, tyro.conf.subcommand("export-gr00t", prefix_name=False)]
    ]

    def run(self) -> int:
        """Run the chosen action."""
        return self.action.run()


def _describe(dataset: EpisodeDataset) -> dict[str, Any]:
    info, frames = dataset.info, dataset.frames
    words = np.bincount(frames.task, minlength=len(dataset.tasks)).tolist()
    told = Counter(text for texts in dataset.rows.tasks for text in texts)
    found: dict[str, Any] = {
        "dataset": str(dataset.root),
        "robot_type": info.robot_type,
        "fps": info.fps,
        "episodes": info.total_episodes,
        "frames": info.total_frames,
        "seconds": round(info.total_frames / info.fps, 3),
        "waiting_episodes": waiting_episodes(dataset.root),
        "features": {name: [feature.dtype, list(feature.shape)] for name, feature in info.features.items()},
        "instructions": {t: {"episodes": told[t], "frames": n} for t, n in zip(dataset.tasks, words, strict=True)},
        "subtasks": list(dataset.subtasks),
        "sources": {},
        "statistics": {STATE: _statistics(frames.state), ACTION: _statistics(frames.action)},
    }
    for source in dict.fromkeys(origin.source for origin in dataset.origins or ()):
        fitness = [origin.fitness for origin in dataset.origins or () if origin.source == source]
        found["sources"][source] = {
            "episodes": len(fitness),
            "fitness": {"min": min(fitness), "mean": sum(fitness) / len(fitness), "max": max(fitness)},
        }
    return found


def _statistics(frames: np.ndarray) -> dict[str, list[float]]:
    """Over all frames, exactly; a column at a time, since all of them may not fit into memory."""
    rows = []
    for number in range(frames.shape[1]):
        values = np.asarray(frames[:, number], dtype=np.float64)
        q01, q99 = np.quantile(values, (0.01, 0.99))
        rows.append((values.min(), q01, values.mean(), values.std(), q99, values.max()))
    return {name: [float(row[place]) for row in rows] for place, name in enumerate(_SHOWN)}


def _print(found: dict[str, Any]) -> None:
    minutes = found["seconds"] / 60
    print(f"{found['dataset']}: LeRobotDataset v3.0 of '{found['robot_type']}' at {found['fps']:g} Hz")
    print(f"{found['episodes']} episodes, {found['frames']} frames, {minutes:.1f} minutes")
    if found["waiting_episodes"]:
        print(
            f"{found['waiting_episodes']} finished episodes are not in it yet: a writer is at work, or was interrupted "
            f"(eureka dataset finish {found['dataset']})"
        )
    for source, row in found["sources"].items():
        spread = "{min:.4g} to {max:.4g}, mean {mean:.4g}".format(**row["fitness"])
        print(f"from {source}: {row['episodes']} episodes, fitness {spread}")
    print("\nfeatures: " + ", ".join(f"{n} {kind} {shape}" for n, (kind, shape) in found["features"].items()))
    print(f"\n{len(found['instructions'])} instructions:")
    for text, row in list(found["instructions"].items())[:_MOST_ROWS]:
        print(f"  {row['episodes']:>7} episodes {row['frames']:>9} frames  {text}")
    for name, statistics in found["statistics"].items():
        print(f"\n{name:<18}" + "".join(f"{title:>11}" for title in _SHOWN))
        for number, row in enumerate(list(zip(*statistics.values(), strict=True))[:_MOST_ROWS]):
            print(f"{number:>18}" + "".join(f"{value:>11.4g}" for value in row))
        if len(statistics["min"]) > _MOST_ROWS:
            print(f"  and {len(statistics['min']) - _MOST_ROWS} more; --json has all")
