"""Writes a LeRobotDataset v3.0, episode by episode, so that a killed writer loses no finished one.

A Parquet file cannot grow. So each finished episode becomes a small file of its own in `.open/` at once, whole and
synced; when those reach the size of a data file, and at the end, they are joined into the next one ("sealed"). Sealing
writes the data file, the episodes' file, the instructions, the statistics and last info.json, which counts what is in
the dataset: until that file is replaced the dataset is as it was, and the episodes still lie in `.open/`. Whoever opens
the folder again goes on from there. A file that was sealed is never written again.

One writer at a time: it holds a lock on `meta/` that goes with its process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from distill.dataset import parquet
from distill.dataset.episode import Episode, Origin, checked_columns, numbered
from distill.dataset.layout import (
    CHUNK_FILES,
    DATA_PATH,
    EPISODES_PATH,
    FILE_SIZE_MB,
    INDEX_FEATURES,
    INFO,
    ORIGIN_FEATURES,
    SEED,
    STATS,
    SUBTASK_INDEX,
    SUBTASKS,
    TASK_INDEX,
    TASKS,
    WORLD,
    DatasetSpec,
    Info,
    first_difference,
    next_file,
    read_info,
)
from distill.dataset.rows import encode_rows, make_row, plain, read_rows, read_statistics
from distill.dataset.statistics import Statistics, aggregate, episode_statistics
from rl.record import write_atomic, write_json_atomic
from tasks.errors import UserError

try:
    import fcntl
except ImportError:  # Windows: nothing is held there
    fcntl = None

OPEN = ".open"
"""Folder of finished episodes that are in no data file yet."""
_MIB = 1024**2


class DatasetWriter:
    """Adds episodes to a dataset. Use it as a context manager, or call `close`."""

    def __init__(
        self, root: Path, spec: DatasetSpec, *, file_size_mb: float = FILE_SIZE_MB, chunks_size: int = CHUNK_FILES
    ) -> None:
        """Start a dataset in `root`, or go on with the one that is there; its sizes of files stay then.

        Raises:
            UserError: there is something else, another writer is at work, or the spec is not that of the dataset.
        """
        self.root, self.spec = Path(root), spec
        if not file_size_mb > 0 or chunks_size < 1:
            raise UserError(f"file_size_mb is {file_size_mb}, chunks_size {chunks_size}; expected more than 0.")
        fresh = Info(spec.robot_type, spec.fps, spec.all_features(), chunks_size=chunks_size,
                     data_files_size_in_mb=file_size_mb)  # fmt: skip
        self._require_room()
        try:
            (self.root / "meta").mkdir(parents=True, exist_ok=True)
            self._lock: int | None = _locked(self.root / "meta")
        except OSError as error:
            raise self._cannot_write(error) from None
        try:
            self._recover(fresh)
        except OSError as error:
            self.abandon()
            raise self._cannot_write(error) from None
        except BaseException:
            self.abandon()
            raise

    @classmethod
    def resume(cls, root: Path) -> DatasetWriter:
        """Go on with a dataset of ours, as it describes itself. Raises UserError if there is none."""
        info = read_info(Path(root))
        own = {*INDEX_FEATURES, *ORIGIN_FEATURES, SUBTASK_INDEX}
        given = {name: feature for name, feature in info.features.items() if name not in own}
        spec = DatasetSpec(info.robot_type or "", info.fps, given, SUBTASK_INDEX in info.features)
        return cls(root, spec)

    @property
    def num_episodes(self) -> int:
        """Finished episodes, those in `.open/` included."""
        return self._info.total_episodes + len(self._waiting)

    @property
    def origins(self) -> tuple[Origin, ...]:
        """Where each episode comes from."""
        return tuple(self._origins)

    def add_episode(self, episode: Episode) -> int:
        """Add a finished episode and return its number. When this returns it is on the disk.

        Raises:
            UserError: its columns are not those of the spec, hold a NaN or an infinity, or the disk refuses.
        """
        columns, length = checked_columns(episode, self.spec)
        number, frame, origin = self.num_episodes, np.arange(length), episode.origin
        tasks = numbered(self._tasks, episode.tasks, length, "task")
        columns |= {
            SEED: np.full(length, origin.seed),
            WORLD: np.full(length, origin.world),
            "timestamp": (frame / self.spec.fps).astype(np.float32),
            "frame_index": frame,
            "episode_index": np.full(length, number),
            "index": self._frames + frame,
            TASK_INDEX: tasks.pop(""),
        }
        note: dict[str, Any] = {"tasks": tasks, "subtasks": {}}
        if self.spec.subtasks:
            note["subtasks"] = numbered(self._subtasks, episode.subtasks, length, "subtask")
            columns[SUBTASK_INDEX] = note["subtasks"].pop("")
        note["origin"] = [origin.source, origin.seed, origin.world, origin.fitness]
        data = parquet.encode({name: columns[name] for name in self.spec.all_features()}, note)
        path = self.root / OPEN / _file_name(number)
        try:
            if self._waiting and self._waiting_bytes + len(data) > self._info.data_files_size_in_mb * _MIB:
                self._seal()
            write_atomic(path, data)
        except OSError as error:
            raise self._cannot_write(error) from None
        self._accept(path, note, length)
        return number

    def close(self) -> None:
        """Seal what waits in `.open/` and let go of the folder. Raises UserError if the disk refuses."""
        if self._lock is None:
            return
        try:
            if self._waiting:
                self._seal()
            (self.root / OPEN).rmdir()
        except OSError as error:
            raise self._cannot_write(error) from None
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let go of the folder without sealing; finished episodes stay in `.open/`."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        # After an error nothing more is written: what is finished lies in .open/ and is sealed by the next writer.
        self.close() if error is None else self.abandon()

    def _require_room(self) -> None:
        if self.root.is_dir() and not (self.root / INFO).is_file():
            strange = [e.name for e in self.root.iterdir() if e.name not in (OPEN, "meta")]
            strange += [e.name for e in self.root.glob("meta/*") if not e.name.endswith(".part")]
            if strange:
                raise UserError(f"{self.root} holds '{strange[0]}' and no dataset; choose an empty or a new folder.")

    def _recover(self, fresh: Info) -> None:
        """Read what is there, sealed and waiting."""
        self._waiting: list[Path] = []
        self._waiting_bytes = 0
        if not (self.root / INFO).is_file():
            write_json_atomic(self.root / INFO, fresh.to_json())
        info = read_info(self.root)
        difference = first_difference(fresh.features, info.features)
        if (info.robot_type, info.fps) != (fresh.robot_type, fresh.fps):
            there, here = (f"'{i.robot_type}' at {i.fps:g} Hz" for i in (info, fresh))
            difference = f"it is of {there}, not of {here}"
        if difference or info.data_path != DATA_PATH:
            raise UserError(
                f"{self.root} holds another dataset: {difference or f'its files are at {info.data_path}'}; choose "
                "another folder, or record what it has."
            )
        (self.root / OPEN).mkdir(exist_ok=True)
        self._info, self._frames = info, info.total_frames
        self._tasks: list[str] = []
        self._subtasks: list[str] = []
        self._origins: list[Origin] = []
        self._statistics: Statistics | None = None
        self._place = (0, 0)
        if info.total_episodes:
            self._read_sealed(info)
        for folder in (OPEN, "meta", "meta/episodes/*", "data/*"):
            for part in self.root.glob(f"{folder}/.*.part"):
                part.unlink()  # half a file: its writer was killed
        waiting = _waiting_files(self.root, info)
        for path in set((self.root / OPEN).glob("episode_*.parquet")) - set(waiting):
            path.unlink()  # sealed, and its writer killed before it was removed
        for path in waiting:
            if path.name != _file_name(self.num_episodes):
                raise UserError(f"{path}: an episode before it is missing; move this file away to go on without it.")
            self._accept(path, parquet.read_note(path), len(parquet.read(path, ["index"])["index"]))

    def _read_sealed(self, info: Info) -> None:
        rows = read_rows(self.root, info)
        if rows.origins is None:
            raise UserError(f"{self.root}: another program has added episodes to it; choose another folder.")
        self._origins += rows.origins
        # A seal that was interrupted may have named more than info.json counts.
        self._tasks += parquet.read_names(self.root / TASKS, TASK_INDEX)[: info.total_tasks]
        if self.spec.subtasks:
            self._subtasks += parquet.read_names(self.root / SUBTASKS, SUBTASK_INDEX)
        self._statistics = read_statistics(self.root, info)
        self._place = next_file(*rows.place[-1], info.chunks_size)

    def _accept(self, path: Path, note: Mapping[str, Any], length: int) -> None:
        for known, numbers in ((self._tasks, note["tasks"]), (self._subtasks, note["subtasks"])):
            for text, number in sorted(numbers.items(), key=lambda item: item[1]):
                if number == len(known):
                    known.append(text)
        self._waiting.append(path)
        self._waiting_bytes += path.stat().st_size
        self._origins.append(Origin(*note["origin"]))
        self._frames += length

    def _seal(self) -> None:
        """Move the waiting episodes into a data file. Killed anywhere in it, nothing is lost and nothing is twice."""
        rows, parts = [], [] if self._statistics is None else [self._statistics]
        end = self._info.total_frames
        for number, path in enumerate(self._waiting, start=self._info.total_episodes):
            columns = parquet.read(path)
            parts.append(episode_statistics(columns))
            begin, end = end, end + len(columns["index"])
            tasks = [self._tasks[index] for index in dict.fromkeys(columns[TASK_INDEX].tolist())]
            rows.append(make_row(number, begin, end, self._place, tasks, self._origins[number], parts[-1]))
        statistics = aggregate(parts)
        place = dict(zip(("chunk_index", "file_index"), self._place, strict=True))
        self._write(DATA_PATH.format(**place), parquet.join(self._waiting))
        self._write(EPISODES_PATH.format(**place), encode_rows(rows))
        self._write(TASKS, parquet.encode_names(self._tasks, TASK_INDEX))
        if self.spec.subtasks:
            self._write(SUBTASKS, parquet.encode_names(self._subtasks, SUBTASK_INDEX))
        write_json_atomic(self.root / STATS, plain(statistics))
        info = replace(self._info, total_episodes=self.num_episodes, total_frames=end, total_tasks=len(self._tasks))
        write_json_atomic(self.root / INFO, info.to_json())
        sealed, self._waiting, self._waiting_bytes = self._waiting, [], 0
        self._info, self._statistics = info, statistics
        self._place = next_file(*self._place, info.chunks_size)
        for path in sealed:
            path.unlink()

    def _write(self, name: str, data: bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)

    def _cannot_write(self, error: OSError) -> UserError:
        return UserError(
            f"cannot write {self.root}: {error.strerror}; episodes that were finished are safe. Mend that and go on "
            "with the same folder."
        )


def _file_name(number: int) -> str:
    return f"episode_{number:06d}.parquet"


def waiting_episodes(root: Path) -> int:
    """Finished episodes that no data file of a dataset has yet, whether their writer is at work or was killed."""
    return len(_waiting_files(root, read_info(root)))


def _waiting_files(root: Path, info: Info) -> list[Path]:
    found = {int(path.stem.removeprefix("episode_")): path for path in (root / OPEN).glob("episode_*.parquet")}
    return [path for number, path in sorted(found.items()) if number >= info.total_episodes]


def _locked(folder: Path) -> int:
    """A handle that holds the folder for this process, until it is closed or the process ends."""
    if fcntl is None:
        return os.open(os.devnull, os.O_RDONLY)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise UserError(f"another writer is at work in {folder.parent}; wait for it, or end it first.") from None
    except OSError:
        os.close(handle)
        raise
    return handle
