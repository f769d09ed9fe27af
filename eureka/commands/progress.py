"""What `eureka search` shows while it runs: bars on a terminal, plain lines elsewhere.

Both are listeners of the search and know only what it tells them and the metrics that running trainings write.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from eureka.candidate import Candidate, Status
from eureka.designers.base import Reply
from eureka.listener import Listener
from eureka.search_config import SearchConfig

_TAIL_BYTES = 65_536  # a line of metrics has a few thousand
_PLAIN_EVERY_S = 30.0
_BASELINES = 3  # final, human and sparse


@dataclass
class _Run:
    folder: Path
    iterations: int
    start: int = 0
    """Iterations that an earlier training has done for it."""
    done: int = 0
    fitness: float | None = None

    def refresh(self) -> None:
        """Read how far the training is."""
        metrics = last_metrics(self.folder / "metrics.jsonl")
        if metrics is not None:
            self.done = int(metrics["iteration"])
            if isinstance(metrics["fitness"], float):
                self.fitness = metrics["fitness"]


class ProgressListener(Listener):
    """Keeps count of a search, and prints one line for each thing that happens.

    Args:
        config: The search.
        unit: Unit of the fitness.
        console: Where lines go.
    """

    def __init__(self, config: SearchConfig, unit: str, console: Console | None = None) -> None:
        self.config = config
        self.unit = unit
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self.generation = 0
        self.best: Candidate | None = None
        self.runs: dict[str, _Run] = {}
        self.finals = False
        self._whole = config.training().iterations
        self._trained = 0.0  # trainings' worth of iterations that this process has seen done
        self._training_s = 0.0  # wall time in which it saw them
        self._since: float | None = None
        self._said_s = time.monotonic()

    def say(self, text: str) -> None:
        """One line for people."""
        self.console.print(text, markup=False)

    def generation_started(self, generation: int, generations: int) -> None:
        """A headline."""
        self.generation = generation
        self.say(f"generation {generation} of {generations}: asking for {self.config.samples} rewards")

    def reply_arrived(self, reply: Reply) -> None:
        """A line where there was no usable reply."""
        if reply.outcome != "ok":
            self.say(f"  {reply.ask_id}: {reply.outcome} {reply.error or ''}".rstrip())

    def judged(self, candidate: Candidate) -> None:
        """A line where the gate said no."""
        if candidate.status is not Status.ACCEPTED:
            self.say(f"  {candidate.candidate_id}: {candidate.status} ({_first_problem(candidate.error)})")

    def run_started(self, run_id: str, run_dir: Path, iterations: int, start_iteration: int = 0) -> None:
        """A training waits or runs."""
        if not self.finals and run_id.startswith(("final", "human", "sparse")):
            self.finals = True
            self.say("the best, the human and the sparse reward train on fresh seeds")
        self.runs[run_id] = _Run(run_dir, iterations, start_iteration)
        self._since = self._since or time.monotonic()

    def run_ended(self, run_id: str, status: str, fitness: float | None) -> None:
        """A training's outcome."""
        run = self.runs.pop(run_id, None)
        if run is not None:
            self._trained += (run.iterations - run.start) / self._whole
        if not self.runs and self._since is not None:
            self._training_s += time.monotonic() - self._since
            self._since = None
        self.say(f"  {run_id}: {status if fitness is None else f'fitness {fitness:.4g} {self.unit}'}")

    def generation_ended(self, generation: int, best: Candidate | None, improved: bool) -> None:
        """Whether it helped."""
        self.best = best
        if best is None:
            self.say(f"generation {generation}: no reward has been scored yet")
        else:
            verb = "now" if improved else "still"
            self.say(f"generation {generation}: the best is {verb} {best.candidate_id}, {best.fitness:.4g} {self.unit}")

    def tick(self) -> None:
        """A line every half minute."""
        self.refresh()
        if time.monotonic() - self._said_s > _PLAIN_EVERY_S and self.runs:
            self._said_s = time.monotonic()
            running = [f"{name} {run.done}/{run.iterations}" for name, run in self.runs.items() if run.done]
            self.say("  " + "; ".join([self.headline(), *([", ".join(running)] if running else [])]))

    def refresh(self) -> None:
        """Read the metrics of the trainings that run."""
        for run in self.runs.values():
            run.refresh()

    def headline(self) -> str:
        """Where the search is, in one line: generation, best so far, time left."""
        where = "final comparison" if self.finals else f"generation {self.generation}/{self.config.generations}"
        best = "" if self.best is None else f", best {self.best.fitness:.4g} {self.unit} ({self.best.candidate_id})"
        left = self.left_s()
        return f"{where}{best}" + ("" if left is None else f", about {_clock(left)} left")

    def left_s(self) -> float | None:
        """Seconds until the end at the pace seen so far, replies not counted; None before there is a pace."""
        now = sum(max(0, run.done - run.start) for run in self.runs.values()) / self._whole
        open_ = sum(run.iterations - run.start for run in self.runs.values()) / self._whole
        spent = self._training_s + (0.0 if self._since is None else time.monotonic() - self._since)
        done = self._trained + now
        if done < 0.1 or spent <= 0.0:
            return None
        config = self.config
        each = config.samples * config.seeds_per_candidate * (0.5 if config.halves else 1.0)  # see `eureka.halving`
        each += min(config.confirm, config.samples) * config.confirm_seeds
        ahead = 0 if self.finals else (self.config.generations - self.generation) * each
        ahead += 0 if self.finals else _BASELINES * self.config.final_seeds
        return (open_ - now + ahead) * spent / done

    def close(self) -> None:
        """Take down what stands on the screen."""


class LiveListener(ProgressListener):
    """On a terminal: a bar for each training that runs, below the lines."""

    def __init__(self, config: SearchConfig, unit: str, console: Console | None = None) -> None:
        super().__init__(config, unit, console)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._progress = Progress(*columns, console=self.console, transient=True, auto_refresh=False)
        self._bars: dict[str, TaskID] = {}
        self._head: TaskID | None = None

    def run_started(self, run_id: str, run_dir: Path, iterations: int, start_iteration: int = 0) -> None:
        """The bars go up with the first training."""
        super().run_started(run_id, run_dir, iterations, start_iteration)
        if self._head is None:
            self._head = self._progress.add_task("all", total=1, note="")
            self._progress.start()

    def run_ended(self, run_id: str, status: str, fitness: float | None) -> None:
        """The bars come down with the last one, so that nothing is drawn while a designer is asked."""
        super().run_ended(run_id, status, fitness)
        bar = self._bars.pop(run_id, None)
        if bar is not None:
            self._progress.remove_task(bar)
        if not self.runs:
            self.close()

    def tick(self) -> None:
        """Draw."""
        self.refresh()
        for run_id, run in self.runs.items():
            if run.done and run_id not in self._bars:
                self._bars[run_id] = self._progress.add_task(run_id, total=run.iterations, note="")
            if run_id in self._bars:
                note = "" if run.fitness is None else f"{run.fitness:.3g} {self.unit}"
                self._progress.update(self._bars[run_id], completed=run.done, note=note)
        if self._head is not None:
            waiting = len(self.runs) - len(self._bars)
            note = self.headline() + (f", {waiting} waiting" if waiting else "")
            done = sum(run.done for run in self.runs.values())
            total = sum(run.iterations for run in self.runs.values())
            self._progress.update(self._head, completed=done, total=total, note=note)
        self._progress.refresh()

    def close(self) -> None:
        """Take the bars down."""
        self._progress.stop()
        for bar in (self._head, *self._bars.values()):
            if bar is not None:
                self._progress.remove_task(bar)
        self._head, self._bars = None, {}


def last_metrics(path: Path) -> dict[str, Any] | None:
    """The last whole line of a metrics.jsonl, however long the file; None before there is one."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return None
    try:
        return json.loads(lines[-1]) if lines else None
    except ValueError:
        return None  # a line longer than the tail


def _first_problem(error: str | None) -> str:
    """The line of a gate's explanation that names the first problem, or the first line of anything else."""
    lines = [line.strip() for line in (error or "").splitlines() if line.strip()]
    if not lines:
        return "no reason given"
    return next((line.removeprefix("1. ") for line in lines if line.startswith("1. ")), lines[0])


def _clock(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
