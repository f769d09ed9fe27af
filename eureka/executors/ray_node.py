"""One training on a node of a cluster: what a Ray task does there. Does not import Ray.

The task is a generator of messages, plain dicts of numbers, texts and bytes:

    {"kind": "refused", "text": ...}            nothing was started; no other node would do better
    {"kind": "started", "node": ...}
    {"kind": "metrics", "offset": ..., "data": ...}        new bytes of metrics.jsonl, as they are written
    {"kind": "alive"}                                      every ten seconds without another one
    {"kind": "file", "name": ..., "data": ..., "last": ...}  a file of the run folder in pieces; result.json comes last
    {"kind": "ended", "ending": ..., "exit_code": ..., "stderr_tail": ..., "cause": ...}

The run folder lies in a scratch folder of its own, and the worker is run in it by a `LocalExecutor`: with its limits,
without the secrets of this environment, dying with this process, ended when the task is cancelled.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import socket
import stat
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eureka.executors.arrivals import is_file_name
from eureka.executors.base import Ended, Job
from eureka.executors.local import LocalExecutor
from eureka.executors.memory import fair_share
from eureka.executors.processes import end_orphans
from eureka.executors.scratch import abandoned, scratch_folder
from eureka.executors.travel import Bundle, code_digest
from rewards.confine import REQUIRE_VARIABLE
from rl.record import METRICS, REQUEST, RESULT
from tasks.errors import UserError

ALIVE_S = 10.0
"""A node is silent for no longer while its worker runs."""
_SCRATCH = "eureka-run-"
_POLL_S = 0.2
_PIECE_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Order:
    """What a node is told. Travels as a dict of plain values."""

    request: str
    """The content of request.json."""
    threads: int
    digest: str
    """Of the code that trains, `travel.code_digest()`."""
    task_ref: str | None
    """The task's reference in the bundle that comes with the order; None: the request's task has a name."""
    time_limit_s: float | None
    no_progress_s: float | None
    memory_bytes: int | None
    """None: a fair share of the node."""
    max_bytes: int
    """Most that the files of the run folder may hold together."""
    require_sandbox: bool
    start: dict[str, bytes]
    """Files of the run folder that a training goes on from, by name; empty for one that begins."""
    command: tuple[str, ...] | None
    """Run with the run folder as its last argument; None: `python -m rl.worker`."""

    def plain(self) -> dict[str, Any]:
        """Without a class of ours, so that nothing but plain values is sent."""
        return asdict(self)


def run_job(order: Mapping[str, Any], files: Mapping[str, bytes]) -> Iterator[dict[str, Any]]:
    """Run one training; yields messages.

    Args:
        order: Fields of `Order`.
        files: The task's bundle; empty for a task with a name.
    """
    told = Order(**order)
    if told.digest != code_digest():
        yield {"kind": "refused", "text": f"{socket.gethostname()} has another version of eureka-skills installed"}
        return
    _sweep()
    scratch = scratch_folder(_SCRATCH)
    try:
        run_dir = scratch / "run"
        run_dir.mkdir()
        original = _write_request(told, files, scratch)
        ended = yield from _run(told, run_dir)
        if ended.ending == "disk_full":  # this node's: the search waits for its own
            cause = f"the disk of node {socket.gethostname()} is full"
            yield _last(dataclasses.replace(ended, ending="crashed", exit_code=None, cause=cause))
            return
        yield from _bring_back(run_dir, told.max_bytes, original)
        yield _last(ended)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write_request(told: Order, files: Mapping[str, bytes], scratch: Path) -> tuple[str, str] | None:
    """Write request.json and what the training goes on from; returns the task's reference here and at the search,
    where they differ."""
    text, changed = told.request, None
    if told.task_ref is not None:
        (scratch / "task").mkdir()
        request = json.loads(told.request)
        here = Bundle(told.task_ref, dict(files)).unpack(scratch / "task")
        changed = (here, request["task"])
        text = json.dumps({**request, "task": here})
    for name, data in told.start.items():
        if changed is not None and name.endswith(".json"):
            data = _with_ref(data, changed[1], changed[0])
        (scratch / "run" / name).write_bytes(data)
    (scratch / "run" / REQUEST).write_text(text, encoding="utf-8")
    return changed


def _run(told: Order, run_dir: Path) -> Generator[dict[str, Any], None, Ended]:
    """Run the worker as a local search does; returns how it ended."""
    if told.require_sandbox:
        os.environ[REQUIRE_VARIABLE] = "1"
    else:
        os.environ.pop(REQUIRE_VARIABLE, None)  # this process has served another search
    memory = told.memory_bytes or fair_share(max(1, _cores() // told.threads))
    executor = LocalExecutor(
        1, told.threads, no_progress_s=told.no_progress_s, memory_bytes=memory, worker_command=told.command
    )
    offset, said_s, ended = 0, time.monotonic(), []
    try:
        executor.submit(Job("run", run_dir, told.time_limit_s))
        yield {"kind": "started", "node": socket.gethostname()}
        while not ended:
            ended = executor.wait(_POLL_S)
            for message in _new_metrics(run_dir, offset):
                offset, said_s = message["offset"] + len(message["data"]), time.monotonic()
                yield message
            if time.monotonic() - said_s > ALIVE_S:
                said_s = time.monotonic()
                yield {"kind": "alive"}
    finally:
        executor.cancel_all()
    return ended[0]


def _last(ended: Ended) -> dict[str, Any]:
    plain = {name: getattr(ended, name) for name in ("ending", "exit_code", "stderr_tail", "cause")}
    return {"kind": "ended", **plain}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _new_metrics(run_dir: Path, offset: int) -> Iterator[dict[str, Any]]:
    """What was written to metrics.jsonl since; a file that was written anew is sent anew."""
    with _opened(run_dir / METRICS) as file:
        if file is None:
            return
        if os.fstat(file.fileno()).st_size < offset:
            offset = 0
        file.seek(offset)
        while data := file.read(_PIECE_BYTES):
            yield {"kind": "metrics", "offset": offset, "data": data}
            offset += len(data)


def _bring_back(run_dir: Path, max_bytes: int, task: tuple[str, str] | None) -> Iterator[dict[str, Any]]:
    """The files of the run folder, result.json last; the metrics have been sent."""
    left = max_bytes
    names = sorted(entry.name for entry in run_dir.iterdir() if is_file_name(entry.name))
    for name in sorted(names, key=lambda name: name == RESULT):
        with _opened(run_dir / name) as file:
            if file is None:
                continue  # a folder, a link, a pipe: nothing that a training leaves
            left -= os.fstat(file.fileno()).st_size
            if left < 0:
                raise RuntimeError(f"the run folder holds more than {max_bytes} bytes; no result is brought back")
            data = file.read(_PIECE_BYTES)
            if task is not None and name.startswith("model_") and name.endswith(".json"):
                data = _with_ref(data, *task)
            while True:
                following = file.read(_PIECE_BYTES)
                yield {"kind": "file", "name": name, "data": data, "last": not following}
                if not following:
                    break
                data = following


def _with_ref(data: bytes, here: str, there: str) -> bytes:
    """A checkpoint's meta with the task's reference as it is at the search."""
    try:
        meta = json.loads(data)
    except ValueError:
        return data  # damaged: whoever reads it says so
    if isinstance(meta, dict) and meta.get("task_ref") == here:
        return (json.dumps({**meta, "task_ref": there}, indent=1) + "\n").encode()
    return data


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A plain file, open for reading; None for anything else. A worker that turned hostile may have left a link."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        yield None
        return
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        yield None
        return
    with open(handle, "rb") as file:
        yield file


def _sweep() -> None:
    """Remove what tasks that were killed have left: their scratch folders, and processes that their workers started."""
    for folder in abandoned(_SCRATCH):
        with contextlib.suppress(UserError):  # a process that cannot be ended: the folder goes all the same
            end_orphans(folder / "run")
        shutil.rmtree(folder, ignore_errors=True)
