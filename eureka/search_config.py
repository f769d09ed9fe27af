"""What a search is told, and the folder it keeps: made, locked, found again.

    runs/<task>/<search-id>/search.json  search.db  report.html  candidates/  final/  done

`search.json` is written first and never changed; `done` is written last.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from eureka.designers.base import DesignerConfig
from eureka.disk import check_writable, remove_parts
from eureka.halving import AUTOMATIC_ABOVE
from rl.config import TrainConfig, config_for
from rl.record import read_json, write_json_atomic
from tasks import registry
from tasks.env import check_backend, default_device
from tasks.errors import UserError, did_you_mean

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

SCHEMA = 3
Halving = Literal["auto", "on", "off"]
CONFIG_FILE, DATABASE, DONE, LOCK = "search.json", "search.db", "done", "lock"
_LOCK_WAIT_S = 1.0  # a search that was just killed, or a look at the lock, may hold it for a moment


@dataclass(frozen=True)
class SearchConfig:
    """One search."""

    task: str
    """Registered task, or a task file."""
    samples: int = 16
    """K: reward programs proposed in each generation."""
    generations: int = 5
    """N: generations."""
    repairs: int = 2
    """R: how often a broken program may be repaired."""
    seed: int = 0
    """Seed of the trainings and of designers that draw at random."""
    seeds_per_candidate: int = 1
    """Trainings of each candidate; its fitness is their mean."""
    confirm: int = 0
    """Leaders whose fitness is confirmed on further seeds, after each generation; 0 takes the first figure as it is."""
    confirm_seeds: int = 2
    """Further trainings of a leader; its fitness is then the mean of all."""
    halving: Halving = "auto"
    """Whether the worse half of a generation is stopped after a quarter of the training, and again after half of it;
    "auto": above 4 samples."""
    final_seeds: int = 3
    """Fresh seeds on which the best, the human and the sparse reward are trained at the end; 0 skips that."""
    init_reward: str | None = None
    """Text of a program to start from: candidate g00_c00, the first parent and the one to beat."""
    feedback: bool = False
    """Whether a person is asked for a sentence on the best policy after each generation but the last."""
    train: Mapping[str, Any] = field(default_factory=dict)
    """Training settings that differ from the task's; field names of rl.config.TrainConfig."""
    population: bool = False
    """Whether candidates that start together train in one simulation (`rl.population`). Part of the search, since it
    can change the last bits of a result."""
    time_limit_s: float | None = 3600.0
    """Wall time one training may take."""
    threads: int = 1
    """CPU threads of each training. Part of the search, since it can change the last bits of a result."""
    backend: str = "native"
    """What simulates the worlds of the trainings (`tasks.env.BACKENDS`). Fitness is measured by the native one."""
    device: str | None = None
    """torch device of the trainings; None: what the backend runs on, each training on the device of its slot."""
    video: bool = True
    """Whether to film the best policy at the end."""
    designer: DesignerConfig = field(default_factory=DesignerConfig)
    """Who writes the rewards."""

    def __post_init__(self) -> None:
        for name, least in (
            ("samples", 1),
            ("generations", 1),
            ("repairs", 0),
            ("seed", 0),
            ("seeds_per_candidate", 1),
            ("confirm", 0),
            ("confirm_seeds", 1),
            ("final_seeds", 0),
            ("threads", 1),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise UserError(f"{name} is {value!r}; expected a whole number of at least {least}.")
        check_backend(self.backend)
        if self.halving not in get_args(Halving):
            raise UserError(f"halving is {self.halving!r}; expected one of {', '.join(get_args(Halving))}.")
        if self.time_limit_s is not None and not self.time_limit_s > 0:
            raise UserError(f"time_limit_s is {self.time_limit_s!r}; expected a number above 0, or none.")
        budget = self.designer.max_tokens_total
        if budget is not None and budget < 1:
            raise UserError(f"max_tokens_total is {budget}; expected at least 1.")

    @property
    def halves(self) -> bool:
        """Whether candidates are stopped early."""
        return self.samples > AUTOMATIC_ABOVE if self.halving == "auto" else self.halving == "on"

    @property
    def simulated(self) -> dict[str, str]:
        """`backend` and `device` of every training."""
        device = self.device or default_device(registry.make(self.task), self.backend)
        return {"backend": self.backend, "device": device}

    def training(self) -> TrainConfig:
        """The training of every candidate: the task's preset with `train` on top."""
        return config_for(registry.make(self.task), self.train)


def start_folder(config: SearchConfig, out: Path | None = None) -> Path:
    """Make the folder of a new search and write its `search.json`.

    Args:
        config: The search.
        out: The folder; None takes `runs/<task>/<date-time>`.

    Raises:
        UserError: the folder holds a search already, or cannot be written.
    """
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", registry.make(config.task).name)
    folder = out
    if folder is None:
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        folder = Path("runs") / name / stamp
        while folder.exists():
            folder = folder.with_name(folder.name + "x")
    if (folder / CONFIG_FILE).exists() or (folder / DATABASE).exists():
        raise UserError(
            f"{folder} holds a search already; continue it with --resume {folder}, or choose another --out."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        data = dataclasses.asdict(config)
        data["task"] = registry.absolute_ref(config.task)
        data["designer"]["replay_from"] = _absolute(config.designer.replay_from)
        write_json_atomic(folder / CONFIG_FILE, {"schema": SCHEMA, **data})
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; choose another folder with --out.") from error
    return folder


def load_config(folder: Path) -> SearchConfig:
    """The config of a search folder.

    Raises:
        UserError: there is no such folder, or its `search.json` is missing, damaged or of another version.
    """
    if not folder.is_dir():
        near = did_you_mean(folder.name, [p.name for p in folder.parent.iterdir()]) if folder.parent.is_dir() else ""
        raise UserError(f"there is no folder {folder} to resume.{near}")
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise UserError(f"{folder} holds no {CONFIG_FILE}; it is not the folder of a search.")
    data = read_json(path)
    if not isinstance(data, dict):
        raise UserError(f"{path} holds a JSON {type(data).__name__}, expected an object; restore it from a copy.")
    data = _as_this_version(data, path)
    designer = _known(data.pop("designer", {}), DesignerConfig, path)
    if designer.get("replay_from"):
        designer["replay_from"] = Path(designer["replay_from"])
    return SearchConfig(**_known(data, SearchConfig, path), designer=DesignerConfig(**designer))


def _as_this_version(data: dict[str, Any], path: Path) -> dict[str, Any]:
    """The fields of a `search.json` of this or an older version; the file itself is never changed."""
    version = data.get("schema")
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= SCHEMA:
        raise UserError(
            f"{path} has schema {version!r}; this version of eureka-skills reads 1 to {SCHEMA}. Resume it with the "
            "version that wrote it."
        )
    fields = {key: value for key, value in data.items() if key != "schema"}
    for step in range(version, SCHEMA):
        fields = _MIGRATIONS[step](fields)
    return fields


def _from_1(fields: dict[str, Any]) -> dict[str, Any]:
    """Version 1 came without what was added while it lasted; those searches go on as they were begun."""
    return {**_ABSENT_FROM_1, **fields, "designer": {**_ABSENT_FROM_1_DESIGNER, **fields.get("designer", {})}}


def _from_2(fields: dict[str, Any]) -> dict[str, Any]:
    """Version 2 trained every candidate to the end."""
    return {**_ABSENT_FROM_2, **fields}


_ABSENT_FROM_2: dict[str, Any] = {"halving": "off", "init_reward": None, "feedback": False}
_ABSENT_FROM_1: dict[str, Any] = {"confirm": 0}
_ABSENT_FROM_1_DESIGNER: dict[str, Any] = {"max_retry_after_s": 300.0}
_MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1, 2: _from_2}
"""Version -> what makes the next one's fields of its fields."""


def _known(data: Any, cls: type, path: Path) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(cls)}
    strange = [key for key in data if key not in names] if isinstance(data, dict) else ["(no object)"]
    if strange:
        raise UserError(f"{path} holds unknown fields: {', '.join(strange)}; it was written by another version.")
    return dict(data)


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(Path(path).resolve())


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a search folder; a second search on it is refused.

    The lock belongs to the process and goes with it, however it ends. Where the platform has no file locks (Windows)
    nothing is held.

    Raises:
        UserError: another process holds it, or the folder cannot be written.
    """
    check_writable(folder)
    if fcntl is None:
        yield
        return
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f"cannot lock {folder}: {error.strerror}; nothing was started. Mend that and resume.") from None
    try:
        _hold(handle, folder)
        remove_parts(folder)
        yield
    finally:
        os.close(handle)


def _hold(handle: int, folder: Path) -> None:
    assert fcntl is not None
    until_s = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= until_s:
                raise UserError(f"another search is running in {folder}; wait for it, or end it first.") from None
        except OSError as error:
            raise UserError(f"cannot lock {folder}: {error.strerror}; its file system has no file locks.") from None
        time.sleep(_LOCK_WAIT_S / 10)


def in_use(folder: Path) -> bool:
    """Whether a search is running in a folder. Nothing is written."""
    if fcntl is None or not (folder / LOCK).is_file():
        return False
    handle = os.open(folder / LOCK, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
