"""Where trainings run: the protocol of all executors.

The search and a training meet only through files: the executor is given a run folder with `request.json` and
starts `python -m rl.worker` on it, somewhere. It reports that the process has ended, never what it found; that is
in `result.json`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Ending = Literal["finished", "crashed", "killed", "time_limit", "no_progress", "out_of_memory", "disk_full"]
NO_PROGRESS_S = 900.0
"""Seconds in which the progress of a training (`rl.progress`) has to move. A first start may download a robot or
compile kernels for minutes."""


@dataclass(frozen=True)
class Job:
    """One training to run."""

    run_id: str
    run_dir: Path
    time_limit_s: float | None = None
    """Wall time after which the process is ended; None is no limit."""
    attempt: str = ""
    """The attempt of its request, to be handed back when it ends."""


@dataclass(frozen=True)
class Ended:
    """How the process of a job ended."""

    run_id: str
    ending: Ending
    """finished (it exited), crashed (it died by a signal), killed (we cancelled it), time_limit; no_progress (it stood
    still), out_of_memory (above its limit, or ended by the kernel for want of memory), disk_full (it could not write).
    """
    exit_code: int | None
    stderr_tail: str
    """The last lines it wrote, for people."""
    cause: str = ""
    """Why the executor ended it or believes that it died, in a few words; "" where there is nothing to add."""
    attempt: str = ""
    """That of its job; "" where the executor does not know."""


class Executor(Protocol):
    """Runs jobs, several at once."""

    @property
    def slots(self) -> int:
        """Jobs that run at the same time."""
        ...

    @property
    def threads_per_slot(self) -> int:
        """CPU threads a job may use."""
        ...

    def submit(self, job: Job) -> None:
        """Queue a job. Its id must be new."""
        ...

    def wait(self, timeout_s: float) -> list[Ended]:
        """Jobs that have ended since the last call; returns as soon as there is one, or after timeout_s with none."""
        ...

    def running(self) -> tuple[str, ...]:
        """Ids of jobs whose process is alive."""
        ...

    def cancel_all(self) -> None:
        """End every process and forget the queue; workers may still write that they were told to end."""
        ...

    def kill_all(self) -> None:
        """End every process at once, asking none; called from a signal handler, just before this process ends."""
        ...
