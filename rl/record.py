"""What a training reads and writes: request.json, metrics.jsonl, result.json, TensorBoard events.

Whole files are written under a temporary name, synced and renamed, so a reader never sees half of one;
metrics.jsonl grows by one flushed line per iteration, and its reader forgives a torn last line. A NaN is
written as the string "nan" (infinities as "inf", "-inf"): bare NaN is no JSON, and null would hide it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl.config import TrainConfig, complete_fields, from_json, to_json
from tasks.errors import UserError

SCHEMA = 1
STATUSES = ("ok", "reward_error", "nonfinite_reward", "nonfinite_policy", "diverged", "time_limit", "error",
            "rejected", "disk_full")  # fmt: skip
TERMINATED = "Terminated"
"""Error type in the result of a worker that a signal ended: no verdict on its reward."""
REQUEST, METRICS, RESULT = "request.json", "metrics.jsonl", "result.json"
APART = "apart.jsonl"
"""Figures for people that no designer may see, such as the reward that a foreign task has of its own; only where there
are any. Nothing that talks to a designer reads it."""
SHARED = ("task", "config", "backend", "device", "randomize", "threads", "start_iteration")
"""Fields of a request that are the same for all of a population."""


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """Everything a training is told. The same request and number of threads give the same training."""

    run_id: str
    """Name of this training, unique within a search."""
    candidate_id: str | None = None
    """Candidate whose reward this is; None for baselines."""
    task: str
    """Registry reference: a task's name, or the absolute path of a task file."""
    reward: str
    """Source text of the reward program; for records, it is not run where the training is."""
    reward_graph: dict[str, Any] | None = None
    """What trains: the graph that the gate made of the program (`rewards.graph`); None: the training has a confined
    child process trace the program first."""
    reward_origin: str = ""
    """Where the reward came from, for people."""
    config: TrainConfig
    """The training."""
    seed: int
    """Seed of the worlds, the weights and the exploration."""
    eval_seed: int
    """Seed of the held-out episodes; differs from `seed`."""
    threads: int = 0
    """CPU threads of physics and of torch; 0: as many as this process may use."""
    backend: str = "native"
    """What simulates the worlds (`tasks.env.BACKENDS`)."""
    device: str = "cpu"
    """torch device of the policy, and of the worlds."""
    randomize: bool = False
    """Whether worlds differ as the task's `randomize` table says; held-out episodes are played in worlds alike."""
    time_limit_s: float | None = None
    """Wall-clock limit in seconds, kept between iterations; None: no limit."""
    video: bool = False
    """Whether to record a video of the trained policy."""
    start_iteration: int = 0
    """The training goes on from the checkpoint of this iteration, which lies in its folder with the metrics so far; 0:
    from nothing. `config.iterations` counts from the very start."""
    attempt: str = ""
    """Names one start of this training; its result carries the same name, that of another start is not taken."""
    schema: int = SCHEMA
    """Version of this file's layout."""

    def __post_init__(self) -> None:
        for name, kind in (("run_id", str), ("task", str), ("reward", str), ("reward_origin", str),
                           ("backend", str), ("device", str), ("randomize", bool), ("video", bool), ("attempt", str),
                           ("config", TrainConfig), ("reward_graph", dict | None)):  # fmt: skip
            if not isinstance(getattr(self, name), kind):
                wanted = getattr(kind, "__name__", kind)
                raise UserError(f"request: {name} is {getattr(self, name)!r:.200}, expected {wanted}.")
        if self.candidate_id is not None and not isinstance(self.candidate_id, str):
            raise UserError(f"request: candidate_id is {self.candidate_id!r}, expected a text or null.")
        for name in ("seed", "eval_seed", "threads", "start_iteration"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
                raise UserError(f"request: {name} is {value!r}, expected a whole number of at least 0.")
        if self.start_iteration >= self.config.iterations:
            raise UserError(
                f"request: start_iteration is {self.start_iteration}, expected less than the {self.config.iterations} "
                "iterations of the training."
            )
        limit = self.time_limit_s
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float) or not limit > 0):
            raise UserError(f"request: time_limit_s is {limit!r}, expected a number above 0 or null.")
        if self.schema != SCHEMA:
            raise UserError(
                f"request: schema {self.schema!r} is not the supported {SCHEMA}: written by another version."
            )


def write_request(request: TrainRequest, run_dir: Path) -> Path:
    """Write `request` as run_dir/request.json (the folder is made) and return the path."""
    data = {f.name: getattr(request, f.name) for f in dataclasses.fields(request)}
    data["config"] = to_json(request.config)
    Path(run_dir).mkdir(parents=True, exist_ok=True)
    return write_json_atomic(Path(run_dir) / REQUEST, data)


def read_request(run_dir: Path) -> TrainRequest:
    """Read run_dir/request.json. Raises UserError if it is missing, no JSON, or not a whole valid request."""
    path = Path(run_dir) / REQUEST
    data = read_json(path)
    if isinstance(data, Mapping) and data.get("schema", SCHEMA) != SCHEMA:
        raise UserError(f"{path}: schema {data['schema']!r} is not the supported {SCHEMA}: written by another version.")
    if isinstance(data, Mapping):
        data = {
            "reward_graph": None,
            "attempt": "",
            "start_iteration": 0,
            "backend": "native",
            "randomize": False,
            **data,
        }  # requests of earlier versions have none
    values = complete_fields(data, TrainRequest, "request")
    values["config"] = from_json(values["config"])
    return TrainRequest(**values)


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises UserError if it is missing or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error}).") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None


def write_json_atomic(path: Path, obj: Any) -> Path:
    """Write `obj` as JSON to `path`, whole or not at all, and return the path. Non-finite numbers become
    strings."""
    write_atomic(path, (json.dumps(finite_json(obj), indent=1, allow_nan=False) + "\n").encode())
    return path


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path` by temporary name, fsync and rename; the folder entry is synced too."""
    # Not by tempfile, which makes private files: results are read by others, and a confined process may not chmod.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def finite_json(obj: Any) -> Any:
    """`obj` with every non-finite float replaced by "nan", "inf" or "-inf"."""
    if isinstance(obj, float) and not math.isfinite(obj):
        return str(obj)
    if isinstance(obj, Mapping):
        return {str(key): finite_json(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [finite_json(value) for value in obj]
    return obj


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl ([] if there is none). A torn last line is left out.

    Raises UserError if a line before the last is damaged.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    metrics = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            metrics.append(json.loads(line))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            if number == len(lines):  # without its newline: the writer was stopped in the middle of it
                break
            raise UserError(f"{path}: line {number} is damaged ({error}).") from None
    return metrics


class RunWriter:
    """Appends the metrics of a training to metrics.jsonl and to TensorBoard events in the same folder."""

    def __init__(self, run_dir: Path, *, keep_until: int = 0) -> None:
        """Open the files; metrics of iterations after `keep_until`, left by an earlier run, are dropped."""
        self.path = run_dir / METRICS
        self.kept = [line for line in read_metrics(self.path) if line["iteration"] <= keep_until]
        write_atomic(self.path, b"".join(_line(line) for line in self.kept))
        self._file = self.path.open("ab")
        self._apart = run_dir / APART
        if self._apart.exists():
            kept = [line for line in read_metrics(self._apart) if line["iteration"] <= keep_until]
            write_atomic(self._apart, b"".join(_line(line) for line in kept))
        # Imported here: tensorboard is slow to import, and readers of records do not need it.
        from torch.utils.tensorboard.writer import FileWriter

        self._events = FileWriter(str(run_dir), flush_secs=10)
        if self.kept:
            self._hide_events_after(keep_until)

    def write(self, metrics: Mapping[str, Any]) -> None:
        """Append one iteration."""
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore

        self._file.write(_line(metrics))
        self._file.flush()
        # One event for all curves: SummaryWriter.add_scalar would make an event each, at 0.1 ms.
        values = [Summary.Value(tag=name, simple_value=value) for name, value in _scalars(metrics)]
        self._events.add_summary(Summary(value=values), metrics["iteration"])

    def write_apart(self, when: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
        """Append figures that are for people alone to a file of their own; nothing where there are none."""
        if figures:
            with self._apart.open("ab") as file:
                file.write(_line({**when, **figures}))

    def close(self) -> None:
        """Flush and close both."""
        self._file.close()
        self._events.close()

    def _hide_events_after(self, iteration: int) -> None:
        """Tell TensorBoard that later steps of earlier event files are void, as its own restarts do."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # pyright: ignore

        self._events.add_event(Event(file_version="brain.Event:2"), iteration + 1)
        self._events.add_event(Event(session_log=SessionLog(status=SessionLog.START)), iteration + 1)


def _line(metrics: Mapping[str, Any]) -> bytes:
    return (json.dumps(finite_json(metrics), allow_nan=False, separators=(",", ":")) + "\n").encode()


def _scalars(metrics: Mapping[str, Any]) -> list[tuple[str, float]]:
    scalars = []
    for name, value in metrics.items():
        if name == "components":
            scalars += [(f"components/{c}", stats["mean"]) for c, stats in value.items() if stats["mean"] is not None]
        elif name in ("terminations", "overflow"):
            scalars += [(f"{name}/{reason}", count) for reason, count in value.items()]
        elif name not in ("iteration", "wall_s") and isinstance(value, int | float):
            scalars.append((f"train/{name}", value))
    return scalars


def make_result(request: TrainRequest, status: str, **values: Any) -> dict[str, Any]:
    """A whole result.json: `values` over the empty result of a run with `status`.

    A run that is not "ok" has no fitness. Raises ValueError for an unknown status or field.
    """
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "run_id": request.run_id,
        "candidate_id": request.candidate_id,
        "attempt": request.attempt,
        "status": status,
        "error": None,
        "fitness": None,
        "fitness_std": None,
        "fitness_unit": None,
        "eval": None,
        "env_steps": 0,
        "iterations": 0,
        "wall_s": 0.0,
        "steps_per_s": None,
        "checkpoint": None,
        "video": None,
    }
    unknown = set(values) - set(result)
    if status not in STATUSES or unknown:
        raise ValueError(f"unknown status '{status}' or fields {sorted(unknown)}")
    return result | values


def error_entry(kind: str, message: str, line: int | None = None) -> dict[str, Any]:
    """The "error" of a result: the exception's type, its message and the line of the reward program, if
    known."""
    return {"type": kind, "message": message, "line": line}
