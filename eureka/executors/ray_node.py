"""One training on a node of a cluster: what a Ray task does there. Does not import Ray.

The task is a generator of messages, plain dicts of numbers, texts and bytes:

    {"kind": "refused", "text": ...}            nothing was started; no other node would do better
    {"kind": "started", "pid": ..., "node": ...}
    {"kind": "metrics", "offset": ..., "data": ...}        new bytes of metrics.jsonl, as they are written
    {"kind": "file", "name": ..., "data": ..., "last": ...}  a file of the run folder in pieces; result.json comes last
    {"kind": "ended", "ending": ..., "exit_code": ..., "tail": ...}

The run folder lies in a scratch folder of its own. The worker is a process of its own session, without the secrets of
this one's environment; it dies with this process (Linux: parent-death signal), and is ended when the task is cancelled.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eureka.executors.arrivals import is_file_name
from eureka.executors.local import _die_with_parent, _signal_group, _tail, without_secrets
from eureka.executors.travel import Bundle, code_digest
from rewards.confine import REQUIRE_VARIABLE
from rl.record import METRICS, REQUEST, RESULT

LOG = "worker.log"
_SCRATCH = "eureka-run-"
_POLL_S = 0.1
_PIECE_BYTES = 4 * 2**20
_LINUX = sys.platform == "linux"


@dataclass(frozen=True)
class Order:
    """What a node is told. Travels as a dict of plain values."""

    request: str
    """The content of request.json."""
    threads: int
    digest: str
    """`bundle.code_digest()` of the search; empty: not compared."""
    task_ref: str | None
    """The task's reference in the bundle that comes with the order; None: the request's task has a name."""
    time_limit_s: float | None
    grace_s: float
    """Seconds between asking a worker to end and ending it."""
    max_bytes: int
    """Most that the files of the run folder may hold together."""
    require_sandbox: bool
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
    if told.digest and told.digest != code_digest():
        yield {"kind": "refused", "text": f"{socket.gethostname()} has another version of eureka-skills installed"}
        return
    _sweep()
    scratch = Path(tempfile.mkdtemp(prefix=f"{_SCRATCH}{_owner(os.getpid())}-"))
    try:
        run_dir = scratch / "run"
        run_dir.mkdir()
        original = _write_request(told, files, scratch)
        ended = yield from _run(told, run_dir)
        yield from _bring_back(run_dir, told.max_bytes, original)
        yield ended
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write_request(told: Order, files: Mapping[str, bytes], scratch: Path) -> tuple[str, str] | None:
    """Write request.json; returns the task's reference here and at the search, where they differ."""
    text, changed = told.request, None
    if told.task_ref is not None:
        (scratch / "task").mkdir()
        request = json.loads(told.request)
        here = Bundle(told.task_ref, dict(files)).unpack(scratch / "task")
        changed = (here, request["task"])
        text = json.dumps({**request, "task": here})
    (scratch / "run" / REQUEST).write_text(text, encoding="utf-8")
    return changed


def _run(told: Order, run_dir: Path) -> Generator[dict[str, Any], None, dict[str, Any]]:
    """Start the worker, and watch it until it has ended; returns the last message."""
    with open(run_dir / LOG, "wb") as log:
        popen = subprocess.Popen(
            [*(told.command or (sys.executable, "-m", "rl.worker")), str(run_dir)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment(told.threads, told.require_sandbox),
            start_new_session=True,
            preexec_fn=_die_with_parent if _LINUX else None,
        )
    began, asked, offset = time.monotonic(), None, 0
    try:
        yield {"kind": "started", "pid": popen.pid, "node": socket.gethostname()}
        while popen.poll() is None:
            time.sleep(_POLL_S)
            now = time.monotonic()
            if asked is not None and now - asked > told.grace_s:
                _signal_group(popen, signal.SIGKILL)
            elif asked is None and told.time_limit_s is not None and now - began > told.time_limit_s:
                asked = now
                _signal_group(popen, signal.SIGTERM)
            for message in _new_metrics(run_dir, offset):
                offset = message["offset"] + len(message["data"])
                yield message
        yield from _new_metrics(run_dir, offset)
    finally:
        _end(popen, told.grace_s)
    code = popen.returncode
    ending = "time_limit" if asked is not None else ("finished" if code >= 0 else "crashed")
    return {"kind": "ended", "ending": ending, "exit_code": code, "tail": _tail(run_dir / LOG)}


def _end(popen: subprocess.Popen[bytes], grace_s: float) -> None:
    """End the worker, politely at first, and whatever it left behind in its group."""
    if popen.poll() is None:
        _signal_group(popen, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            popen.wait(grace_s)
    _signal_group(popen, signal.SIGKILL)
    popen.wait()


def environment(threads: int, require_sandbox: bool) -> dict[str, str]:
    """The worker's environment: what this process may use, and no keys, this cluster's included."""
    kept = {name: value for name, value in without_secrets(os.environ).items() if not name.startswith("RAY_")}
    kept.update(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads), PYTHONUNBUFFERED="1")
    if require_sandbox:
        kept[REQUIRE_VARIABLE] = "1"
    root = str(Path(__file__).resolve().parents[2])  # the packages may be used from a checkout
    kept["PYTHONPATH"] = os.pathsep.join(part for part in (root, kept.get("PYTHONPATH")) if part)
    return kept


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
    with open(handle, "rb") as file:
        yield file if stat.S_ISREG(os.fstat(handle).st_mode) else None


def _owner(pid: int) -> str:
    """What names a process for good: pid, start in the kernel's ticks and pid namespace; an empty text for none."""
    try:
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        space = os.readlink(f"/proc/{pid}/ns/pid").strip("pid:[]")
    except OSError:
        return ""
    return f"{pid}.{ticks}.{space}"


def _sweep() -> None:
    """Remove scratch folders of tasks that were killed before they could."""
    space = _owner(os.getpid()).rpartition(".")[2]
    for folder in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*.*.{space}-*") if space else ():
        owner = folder.name.removeprefix(_SCRATCH).partition("-")[0]
        pid = owner.partition(".")[0]
        if pid.isdecimal() and _owner(int(pid)) != owner:
            shutil.rmtree(folder, ignore_errors=True)  # another user's stay
