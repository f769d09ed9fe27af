"""One training as a process: `python -m rl.worker RUN_DIR`.

Reads RUN_DIR/request.json, trains, evaluates, records a video if asked to, and leaves RUN_DIR/result.json in
every case but a bad request and a full disk; tracebacks go to stderr and RUN_DIR/worker.log. Exit code: 0 status
"ok"; 1 another status, with a result; 2 bad request or MUJOCO_GL, one line on stderr; 3 the disk is full (status
"disk_full", where the result could be written). A training that was interrupted continues from its newest sound
checkpoint with `--resume`. While it works, RUN_DIR/progress moves (`rl.progress`). A folder with a population.json
instead of a request is that of many trainings in one simulation: `rl.population_worker`.

Fitness is measured by a process of its own (`rl.evaluator`), forked here before the request is read: it has no reward.

The process confines itself (`rewards.confine`) before it trains: it writes RUN_DIR and nothing else, has no network,
and starts programs only where the request wants a video, which is drawn and encoded by others, or a compiled reward.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Before torch is imported: its OpenMP threads would otherwise spin for work while the physics threads need
# the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("KMP_BLOCKTIME", "0")
# NumPy starts its threads when it is imported, and `rewards.confine` reaches the first thread of a process alone.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from rl import progress
from rl.failures import DISK_FULL_EXIT
from rl.population_worker import POPULATION, run_population
from rl.record import TrainRequest, read_request
from rl.worker_common import (
    LOG,
    Terminated,
    confine_worker,
    failure_of,
    log,
    start_evaluator,
    terminate_by_signals,
    with_video,
    write_failure,
)
from tasks.errors import UserError
from tasks.graphics import check_mujoco_gl

if TYPE_CHECKING:
    from rl.evaluator import Evaluator

__all__ = ["LOG", "Terminated", "main", "run"]


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
        if (run_dir / POPULATION).exists():
            if resume:
                raise UserError(f"{run_dir}: a population is trained from its start; leave --resume away")
            return run_population(run_dir, confined=own)
        evaluator = start_evaluator([run_dir]) if own else None
        request = read_request(run_dir)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    terminate_by_signals()
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
        confine_now = partial(confine_worker, [request], [run_dir]) if confined else None
        result = train(request, run_dir, on_reward=confine_now, on_damaged=log, evaluator=evaluator, resume=resume)
        return with_video(request, run_dir, result)
    except (Terminated, Exception) as exception:
        return write_failure(request, run_dir, failure_of(exception, run_dir))
    finally:
        progress.stop()
        if evaluator is not None:
            evaluator.close()


if __name__ == "__main__":
    sys.exit(main())
