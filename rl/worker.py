"""One training as a process: `python -m rl.worker RUN_DIR`.

Reads RUN_DIR/request.json, trains, evaluates, records a video if asked to, and leaves RUN_DIR/result.json in
every case but a bad request and a full disk; tracebacks go to stderr and RUN_DIR/worker.log. Exit code: 0 status
"ok"; 1 another status, with a result; 2 bad request or MUJOCO_GL, one line on stderr; 3 the disk is full (status
"disk_full", where the result could be written). A training that was interrupted continues from its newest sound
checkpoint with `--resume`. While it works, RUN_DIR/progress moves (`rl.progress`).

Fitness is measured by a process of its own (`rl.evaluator`), forked here before the request is read: it has no reward.

The process confines itself (`rewards.confine`) before it trains: it writes RUN_DIR and nothing else, has no network,
and starts programs only where the request wants a video, which is drawn and encoded by others, or a compiled reward.
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

# Before torch is imported: its OpenMP threads would otherwise spin for work while the physics threads need
# the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("KMP_BLOCKTIME", "0")
# NumPy starts its threads when it is imported, and `rewards.confine` reaches the first thread of a process alone.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from rl import progress
from rl.failures import DISK_FULL, DISK_FULL_EXIT, disk_full, infrastructure
from rl.record import RESULT, TERMINATED, TrainRequest, error_entry, make_result, read_request, write_json_atomic
from tasks.errors import UserError
from tasks.graphics import check_mujoco_gl

if TYPE_CHECKING:
    from rl.evaluator import Evaluator

LOG = "worker.log"


class Terminated(BaseException):
    """SIGTERM or SIGINT came."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the worker on the folder named in `arguments` (default: the command line); returns the exit
    code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    resume = "--resume" in words
    folders = [word for word in words if word != "--resume"]
    if len(folders) != 1:
        print("usage: python -m rl.worker RUN_DIR [--resume]", file=sys.stderr)
        return 2
    run_dir = Path(folders[0])
    # Called with arguments this process is another's: it is not confined for good, and has threads.
    own = arguments is None
    try:
        check_mujoco_gl()
        evaluator = _start_evaluator(run_dir) if own else None
        request = read_request(run_dir)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, _terminate)
    result = run(request, run_dir, resume=resume, confined=own, evaluator=evaluator)
    return {"ok": 0, "disk_full": DISK_FULL_EXIT}.get(result["status"], 1)


def run(
    request: TrainRequest,
    run_dir: Path,
    *,
    resume: bool = False,
    confined: bool = False,
    evaluator: Evaluator | None = None,
) -> dict[str, Any]:
    """Train and record; whatever happens, run_dir/result.json is written and returned. On a full disk it may be
    returned only.

    With `confined` this process confines itself as soon as the reward is a graph, and stays so. `evaluator` measures
    the fitness; without it this process does."""
    try:
        progress.start(run_dir)
        from rl.train import train

        if evaluator is not None:
            evaluator.prepare(request.task)
        confine_now = partial(_confine, request, run_dir) if confined else None
        result = train(request, run_dir, on_reward=confine_now, on_damaged=_log, evaluator=evaluator, resume=resume)
        if result["status"] == "ok" and request.video:
            result = result | {"video": _record_video(request, run_dir, result)}
            with contextlib.suppress(OSError):  # a full disk: the result without the video stands
                write_json_atomic(run_dir / RESULT, result)
        return result
    except Terminated as exception:
        error = error_entry(TERMINATED, f"terminated by {exception}")
    except Exception as exception:
        if disk_full(exception):
            return _disk_is_full(request, run_dir)
        error = _error_of(exception, run_dir)
    finally:
        progress.stop()
        if evaluator is not None:
            evaluator.close()
    result = make_result(request, "error", error=error)
    try:
        write_json_atomic(run_dir / RESULT, result)
    except OSError as exception:
        if not disk_full(exception):
            raise
        return _disk_is_full(request, run_dir)
    return result


def _error_of(exception: Exception, run_dir: Path) -> dict[str, Any]:
    """The "error" of the result. Of an error that a user can act on the line is enough, of others we keep the rest."""
    kind = infrastructure(exception)
    if kind is None and isinstance(exception, UserError):
        return error_entry("UserError", str(exception))
    _log_traceback(run_dir)
    if kind is None:
        return error_entry(type(exception).__name__, str(exception))
    return error_entry(kind, f"{type(exception).__name__}: {exception}")


def _disk_is_full(request: TrainRequest, run_dir: Path) -> dict[str, Any]:
    """The result says so if there is room for it; the exit code does in any case. Earlier checkpoints stay."""
    message = f"{run_dir}: the disk is full, or a quota is used up"
    result = make_result(request, "disk_full", error=error_entry(DISK_FULL, message))
    with contextlib.suppress(OSError):
        write_json_atomic(run_dir / RESULT, result)
    _log(message)
    return result


def _log(line: str) -> None:
    with contextlib.suppress(OSError):  # standard error is a file on the same disk
        print(line, file=sys.stderr, flush=True)


def _start_evaluator(run_dir: Path) -> Evaluator | None:
    """The evaluating process; None, and a line, where this one cannot be forked safely."""
    # What is imported lasts as long as the process: to search it for garbage, here and at the end, takes a quarter of a
    # short worker's processor time, and copies pages that the fork shares.
    gc.disable()
    import rl.train  # noqa: F401 - all that the fork needs is in memory then, and shared

    gc.freeze()
    gc.enable()
    from rewards.confine import REQUIRE_VARIABLE
    from rl.evaluator import Evaluator, can_fork

    if can_fork():
        return Evaluator(partial(_confine_evaluator, run_dir))
    if os.environ.get(REQUIRE_VARIABLE):
        raise SystemExit("--require-sandbox: no process of its own can measure the fitness here (no safe fork)")
    _log("no safe fork here: the fitness is measured in the process of the training")
    return None


def _confine_evaluator(run_dir: Path, task: str) -> None:
    """It reads the run folder and writes nothing; policies are evaluated on the CPU."""
    from rewards.confine import WORKER, confine

    confine(WORKER, readable=[run_dir.resolve(), *_files_of(task)])


def _confine(request: TrainRequest, run_dir: Path) -> None:
    """Raises UserError for an unknown task, and where a layer is missing that is demanded."""
    from rewards.confine import WORKER, confine
    from rewards.sandbox import close_child

    close_child()  # it may have traced the reward
    compiles = request.config.compile_reward_s > 0
    if compiles:  # in this process, with its files in the one folder that it writes
        cache = str(run_dir.resolve() / "compiled")
        os.environ |= {"TORCHINDUCTOR_CACHE_DIR": cache, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    confine(
        WORKER,
        readable=_files_of(request.task),
        writable=[run_dir.resolve()],
        programs=request.video or compiles,
        gpu=request.device.startswith("cuda"),
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
        _log_traceback(run_dir)
        return None
    return path.name if path is not None else None


def _log_traceback(run_dir: Path) -> None:
    text = traceback.format_exc()
    _log(text)
    with contextlib.suppress(OSError), (run_dir / LOG).open("a", encoding="utf-8") as log:
        log.write(text + "\n")


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)  # a second one must not cut the writing of the result
    raise Terminated(signal.Signals(signum).name)


if __name__ == "__main__":
    sys.exit(main())
