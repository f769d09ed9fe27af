"""One training as a process: `python -m rl.worker RUN_DIR`.

Reads RUN_DIR/request.json, trains, evaluates, records a video if asked to, and leaves RUN_DIR/result.json in
every case but a bad request; tracebacks go to stderr and RUN_DIR/worker.log. Exit code: 0 status "ok"; 1
another status, with a result; 2 bad request, one line on stderr. A training that was interrupted continues
from its newest checkpoint with `--resume`.

The process confines itself (`rewards.confine`) before it trains: it writes RUN_DIR and nothing else, has no network,
and starts programs only where the request wants a video, which is drawn and encoded by others, or a compiled reward.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

# Before torch is imported: its OpenMP threads would otherwise spin for work while the physics threads need
# the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("KMP_BLOCKTIME", "0")
# NumPy starts its threads when it is imported, and `rewards.confine` reaches the first thread of a process alone.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from rl.record import RESULT, TERMINATED, TrainRequest, error_entry, make_result, read_request, write_json_atomic
from tasks.errors import UserError

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
    try:
        request = read_request(run_dir)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, _terminate)
    # Called with arguments this process is another's, which shall not be confined for good.
    result = run(request, run_dir, resume=resume, confined=arguments is None)
    return 0 if result["status"] == "ok" else 1


def run(request: TrainRequest, run_dir: Path, *, resume: bool = False, confined: bool = False) -> dict[str, Any]:
    """Train and record; whatever happens, run_dir/result.json is written and returned.

    With `confined` this process confines itself as soon as the reward is a graph, and stays so."""
    from rl.train import train

    try:
        confine_now = partial(_confine, request, run_dir) if confined else None
        result = train(request, run_dir, on_reward=confine_now, resume=resume)
        if result["status"] == "ok" and request.video:
            result = result | {"video": _record_video(request, run_dir, result)}
            write_json_atomic(run_dir / RESULT, result)
        return result
    except Terminated as exception:
        error = error_entry(TERMINATED, f"terminated by {exception}")
    except UserError as exception:
        error = error_entry("UserError", str(exception))
    except Exception as exception:
        _log_traceback(run_dir)
        error = error_entry(type(exception).__name__, str(exception), None)
    result = make_result(request, "error", error=error)
    write_json_atomic(run_dir / RESULT, result)
    return result


def _confine(request: TrainRequest, run_dir: Path) -> None:
    """Raises UserError for an unknown task, and where a layer is missing that is demanded."""
    from rewards.confine import WORKER, confine
    from rewards.sandbox import close_child
    from tasks import registry

    close_child()  # it may have traced the reward
    compiles = request.config.compile_reward_s > 0
    if compiles:  # in this process, with its files in the one folder that it writes
        cache = str(run_dir.resolve() / "compiled")
        os.environ |= {"TORCHINDUCTOR_CACHE_DIR": cache, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    task = registry.make(request.task)
    own = [path for path in (registry.user_file(task), task.xml) if isinstance(path, Path)]
    confine(
        WORKER,
        readable=[entry for path in own for entry in _beside(path)],
        writable=[run_dir.resolve()],
        programs=request.video or compiles,
        gpu=request.device.startswith("cuda"),
    )


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
    print(text, file=sys.stderr)
    with (run_dir / LOG).open("a", encoding="utf-8") as log:
        log.write(text + "\n")


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)  # a second one must not cut the writing of the result
    raise Terminated(signal.Signals(signum).name)


if __name__ == "__main__":
    sys.exit(main())
