"""What the processes that train have in common: confinement, the evaluating process, logs, signals, videos.

Importing it starts no threads and needs no torch: a worker forks its evaluating process first.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from rl.failures import DISK_FULL, disk_full, infrastructure
from rl.record import RESULT, TERMINATED, TrainRequest, error_entry, make_result, write_json_atomic
from tasks.errors import UserError

if TYPE_CHECKING:
    from rl.evaluator import Evaluator

LOG = "worker.log"


class Terminated(BaseException):
    """SIGTERM or SIGINT came."""


def failure_of(exception: BaseException, log_dir: Path) -> dict[str, Any]:
    """The "error" of the results of what an exception ended, which is being handled. Of an error that a user can act on
    the line is enough, of others the traceback is kept in the log of `log_dir`."""
    if isinstance(exception, Terminated):
        return error_entry(TERMINATED, f"terminated by {exception}")
    if disk_full(exception):
        message = f"{log_dir}: the disk is full, or a quota is used up"
        log(message)
        return error_entry(DISK_FULL, message)
    kind = infrastructure(exception)
    if kind is None and isinstance(exception, UserError):
        return error_entry("UserError", str(exception))
    log_traceback(log_dir)
    if kind is None:
        return error_entry(type(exception).__name__, str(exception))
    return error_entry(kind, f"{type(exception).__name__}: {exception}")


def write_failure(request: TrainRequest, run_dir: Path, error: dict[str, Any]) -> dict[str, Any]:
    """The result of a training with this error, written. On a full disk only if there is room for it; the exit code
    says so in any case, and earlier checkpoints stay."""
    status = "disk_full" if error["type"] == DISK_FULL else "error"
    result = make_result(request, status, error=error)
    try:
        write_json_atomic(run_dir / RESULT, result)
    except OSError as full:
        if disk_full(full) and status != "disk_full":
            return write_failure(request, run_dir, failure_of(full, run_dir))
        if status != "disk_full":
            raise
    return result


def log(line: str) -> None:
    """A line on standard error."""
    with contextlib.suppress(OSError):  # standard error is a file on the same disk
        print(line, file=sys.stderr, flush=True)


def start_evaluator(run_dirs: Sequence[Path]) -> Evaluator | None:
    """The process that evaluates what is trained in these folders; None, and a line, where this one cannot be forked
    safely."""
    # What is imported lasts as long as the process: to search it for garbage, here and at the end, takes a quarter of a
    # short worker's processor time, and copies pages that the fork shares.
    gc.disable()
    import rl.population
    import rl.train  # noqa: F401 - all that the fork needs is in memory then, and shared

    gc.freeze()
    gc.enable()
    from rewards.confine import REQUIRE_VARIABLE
    from rl.evaluator import Evaluator, can_fork

    if can_fork():
        return Evaluator(partial(_confine_evaluator, run_dirs))
    if os.environ.get(REQUIRE_VARIABLE):
        raise SystemExit("--require-sandbox: no process of its own can measure the fitness here (no safe fork)")
    log("no safe fork here: the fitness is measured in the process of the training")
    return None


def _confine_evaluator(run_dirs: Sequence[Path], task: str) -> None:
    """It reads the run folders and writes nothing; policies are evaluated on the CPU."""
    from rewards.confine import WORKER, confine

    confine(WORKER, readable=[*(run_dir.resolve() for run_dir in run_dirs), *_files_of(task)])


def confine_worker(requests: Sequence[TrainRequest], folders: Sequence[Path]) -> None:
    """Confine this process to what trainings of one task need. folders: what they write; temporary files and compiled
    rewards go to the first. Raises UserError for an unknown task, and where a layer is missing that is demanded."""
    from rewards.confine import WORKER, confine
    from rewards.sandbox import close_child

    close_child()  # it may have traced the reward
    request = requests[0]
    compiles = any(each.config.compile_reward_s > 0 for each in requests)
    if compiles:  # in this process, with its files in the one folder that it writes
        cache = str(folders[0].resolve() / "compiled")
        os.environ |= {"TORCHINDUCTOR_CACHE_DIR": cache, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    confine(
        WORKER,
        readable=_files_of(request.task),
        writable=[folder.resolve() for folder in folders],
        programs=compiles or any(each.video for each in requests),
        gpu=request.device.startswith("cuda") or request.backend == "warp",  # its kernels are kept in the home
    )


def _files_of(reference: str) -> list[Path]:
    """What a task reads besides the libraries."""
    from tasks import registry
    from tasks.robots.menagerie import robot_folder

    task = registry.make(reference)
    own = [path for path in (registry.user_file(task), task.xml) if isinstance(path, Path)]
    robot = [robot_folder(task.robot)] if task.robot else []
    return [*robot, *(entry for path in own for entry in _beside(path))]


def _beside(file: Path) -> Iterator[Path]:
    """What a task may read beside its file: meshes and textures, but no hidden files, and no folders of a home."""
    folder = file.resolve().parent
    home = Path(os.path.expanduser("~"))
    wide = folder in (home, *home.parents)
    for entry in folder.iterdir():
        if not entry.name.startswith(".") and (entry.is_file() or not wide):
            yield entry


def with_video(request: TrainRequest, run_dir: Path, result: dict[str, Any]) -> dict[str, Any]:
    """The result with a video of the trained policy, if the request wants one."""
    if result["status"] == "ok" and request.video:
        result = result | {"video": _record_video(request, run_dir, result)}
        with contextlib.suppress(OSError):  # a full disk: the result without the video stands
            write_json_atomic(run_dir / RESULT, result)
    return result


def _record_video(request: TrainRequest, run_dir: Path, result: dict[str, Any]) -> str | None:
    """Record the trained policy. A renderer that fails never fails the training: it is logged and there is no
    video."""
    try:
        from rl.checkpoint import load_policy
        from rl.video import record_video
        from tasks import registry

        task = registry.make(request.task)
        policy = load_policy(run_dir / result["checkpoint"], task)
        path = record_video(task, policy, run_dir / "video.mp4", seconds=task.episode_length_s, seed=request.eval_seed)
    except Exception:
        log_traceback(run_dir)
        return None
    return path.name if path is not None else None


def log_traceback(run_dir: Path) -> None:
    """The traceback of the exception that is handled, on standard error and in the folder's log."""
    text = traceback.format_exc()
    log(text)
    with contextlib.suppress(OSError), (run_dir / LOG).open("a", encoding="utf-8") as file:
        file.write(text + "\n")


def terminate_by_signals() -> None:
    """SIGTERM and SIGINT raise `Terminated` from now on."""
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, _terminate)


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)  # a second one must not cut the writing of the result
    raise Terminated(signal.Signals(signum).name)
