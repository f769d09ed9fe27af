"""`eureka bench`: methods x tasks x seeds as one table, on this machine or a cluster."""

from __future__ import annotations

import datetime
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

import mujoco
from rich.console import Console

from eureka.bench import BenchConfig, begin, load, run_bench
from eureka.bench_page import write_pages
from eureka.executors.base import NO_PROGRESS_S
from eureka.executors.create import Kind, Wanted
from eureka.listener import Listener
from eureka.training import MachineAtFault
from tasks import registry
from tasks.errors import UserError


class _Lines(Listener):
    """One line for what is begun and each training that ends."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str) -> None:
        """A line for people."""
        self._console.print(text, markup=False)

    def run_ended(self, run_id: str, status: str, fitness: float | None) -> None:
        """A training's outcome."""
        self.say(f"  {run_id}: {status if fitness is None else f'fitness {fitness:.4g}'}")


@dataclass(frozen=True)
class Bench:
    """Train methods on tasks over fresh seeds with equal budgets, and write the scoreboard as JSON, Markdown and HTML.
    Stopped at any moment it goes on with --resume."""

    tasks: tuple[str, ...] = ()
    """Tasks, by name or file, separated by commas or blanks; all registered ones when not given."""
    methods: tuple[str, ...] = ("human", "sparse", "evolution")
    """Among human, sparse, evolution, reward:PATH (a file, the best of a search or of a recording) and replay:DIR (a
    recorded search, searched again), separated by commas or blanks."""
    seeds: int = 5
    """Fresh seeds behind every figure."""
    budget: float = 1.0
    """Share of each task's own iterations that every training gets."""
    samples: int = 8
    """Programs in each generation of evolution."""
    generations: int = 2
    """Generations of evolution."""
    seed: int = 0
    """Seed of the searches."""
    threads: int = 1
    """CPU threads of each training."""
    time_limit_s: float | None = 3600.0
    """Seconds one training may take."""
    executor: Kind = "local"
    """Where trainings run: processes here, or a Ray cluster."""
    slots: int | None = None
    """Trainings at the same time; as many as fit the cores when not given."""
    work: Path | None = None
    """Folder of the trainings and searches; runs/bench/TIME when not given."""
    resume: Path | None = None
    """Go on with the scoreboard in this folder; its settings stand."""
    out: Path = Path("benchmarks/results")
    """Folder of the pages."""
    machine: str = platform.node() or "machine"
    """Name of this machine, in the names of the pages."""

    def run(self) -> int:
        """Run it, write the pages and print where they are; 1 where something was not run."""
        wanted = Wanted(self.executor, self.slots, NO_PROGRESS_S, None)
        say = Console(stderr=True, highlight=False, soft_wrap=True)
        if self.resume is None:
            folder = self.work or Path("runs") / "bench" / datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
            begin(folder, self._config())
        else:
            folder = self.resume
            self._unchanged()
        config, started = load(folder)
        say.print(f"scoreboard -> {folder}", markup=False)
        try:
            rows = run_bench(folder, lambda task: wanted.started(config.threads, task), _Lines(say))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted; go on with eureka bench --resume {folder}") from None
        except MachineAtFault as fault:
            raise MachineAtFault(f"{fault} When it is well again: eureka bench --resume {folder}") from None
        facts = {
            "begun": started,
            "machine": f"{self.machine}, {platform.machine()}, {os.cpu_count()} CPUs",
            "MuJoCo": mujoco.__version__,
            "seeds": config.seeds,
            "budget": f"{config.budget:g} x each task's own iterations",
            "evolution": f"{config.generations} generations x {config.samples} programs",
        }
        name = f"{started}-{re.sub(r'[^A-Za-z0-9_.-]+', '-', self.machine)}"
        try:
            page = write_pages(rows, facts, self.out, name)
        except OSError as error:
            raise UserError(f"cannot write {self.out}: {error.strerror}; choose another folder with --out.") from None
        print(page.with_suffix(".md").read_text(encoding="utf-8"))
        print(f"page: {page}")
        return 1 if any(row.not_run for row in rows) else 0

    def _config(self) -> BenchConfig:
        return BenchConfig(
            tasks=_words(self.tasks) or tuple(registry.names()),
            methods=_words(self.methods),
            seeds=self.seeds,
            budget=self.budget,
            samples=self.samples,
            generations=self.generations,
            seed=self.seed,
            threads=self.threads,
            time_limit_s=self.time_limit_s,
        )

    def _unchanged(self) -> None:
        free = ("executor", "slots", "resume", "out", "machine")
        told = [name for name, field in self.__dataclass_fields__.items() if name not in free
                and getattr(self, name) != field.default]  # fmt: skip
        if told:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in told)
            raise UserError(f"{names} cannot change in a resumed scoreboard; leave it away.")


def _words(given: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for text in given for word in text.split(",") if word)
