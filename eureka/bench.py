"""The scoreboard: methods x tasks x seeds, each training with the same budget, resumable.

    runs/bench/<time>/bench.json  <task>/{baselines/, human/, reward-NAME/, evolution/, replay-NAME/, ..., METHOD.json}

`bench.json` is written first and never changed. A method on a task is a `METHOD.json` as soon as it is over; what is
there is not run again, and what was under way goes on: trainings and searches adopt what they have finished. Rewards
that are there (human, sparse, `reward:PATH`) train on fresh seeds and are measured on episodes that no search selects
by; a search is a whole one, and its best reward is trained on the same seeds in its finals. A task or method that
cannot be run has a reason in place of figures.

What it does not know: statistics (`eureka.bench_statistics`) and pages (`eureka.bench_page`).
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eureka import finals
from eureka.archive import Archive
from eureka.designers.base import DesignerConfig
from eureka.designers.create import create
from eureka.designers.replay import recorded_feedback, recorded_settings, recorded_task
from eureka.executors.base import Executor
from eureka.feedback import Recorded
from eureka.halving import spent
from eureka.listener import Listener
from eureka.named_reward import find_reward
from eureka.search import run_search
from eureka.search_config import CONFIG_FILE, DATABASE, SearchConfig, load_config, locked, start_folder
from eureka.training import MachineAtFault, Training, run_trainings
from rewards.source import RewardSource
from rl.config import config_for
from rl.record import read_json, write_json_atomic
from tasks import registry
from tasks.errors import UserError, did_you_mean
from tasks.task import Task

SCHEMA = 1
SETTINGS = "bench.json"
BASELINES = ("human", "sparse")
SEARCHES = ("evolution", "replay")
KINDS = (*BASELINES, "reward", *SEARCHES)
PLACES = ("reward", "replay")
"""Those that name a file or a folder after a colon."""
ExecutorFor = Callable[[str], AbstractContextManager[Executor]]
"""Task reference -> where its trainings run."""


@dataclass(frozen=True)
class BenchConfig:
    """One scoreboard."""

    tasks: tuple[str, ...]
    """Registered names or task files."""
    methods: tuple[str, ...] = ("human", "sparse", "evolution")
    """human, sparse, evolution, reward:PATH for a reward that is there (a file, the best of a search or recording),
    or replay:DIR for a recorded search, searched again."""
    seeds: int = 5
    """Fresh seeds behind every figure."""
    budget: float = 1.0
    """Share of each task's own iterations that every training gets."""
    samples: int = 8
    """Programs in each generation of evolution."""
    generations: int = 2
    """Generations of evolution."""
    seed: int = 0
    """Seed of the searches; the fresh seeds follow from it."""
    threads: int = 1
    """CPU threads of each training."""
    time_limit_s: float | None = 3600.0
    """Wall time one training may take."""

    def __post_init__(self) -> None:
        for name in ("seeds", "samples", "generations", "threads"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; expected at least 1.")
        if not self.budget > 0:
            raise UserError(f"budget is {self.budget}; expected a number above 0, 1 for each task's own budget.")
        if not self.tasks or not self.methods:
            raise UserError("a scoreboard needs at least one task and one method.")
        for names, what in ((self.tasks, "task"), (self.methods, "method")):
            twice = [name for name in names if names.count(name) > 1]
            if twice:
                raise UserError(f"the {what} {twice[0]} is named twice.")
        for method in self.methods:
            kind, _, place = method.partition(":")
            if kind not in KINDS or (kind in PLACES) != bool(place):
                near = did_you_mean(kind, KINDS)
                expected = "human, sparse, evolution, reward:PATH or replay:DIR"
                raise UserError(f"there is no method '{method}'; expected {expected}.{near}")
            if kind == "replay" and not Path(place).is_dir():
                raise UserError(f"method {method}: there is no folder {place}; expected a recorded search.")
            if kind == "reward" and not Path(place).exists():
                raise UserError(f"method {method}: there is no {place}; expected a file, a search or a recording.")
            if [_file_name(other) for other in self.methods].count(_file_name(method)) > 1:
                raise UserError(f"two methods are named {kind}:.../{Path(place).name}; rename one of the places.")


@dataclass(frozen=True)
class Row:
    """A method on a task.

    Attributes:
        task, method: as in the config, a task by its name.
        unit: of the fitness; "" for a task that cannot be made.
        fitness: held-out fitness of each fresh seed that ended well.
        failed: fresh seeds that ended without a fitness.
        not_run: why there are no figures; "" where there are.
        env_steps: control steps of its trainings, those of a search's candidates included.
        wall_s: seconds of its trainings, one after the other; a training taken from the cache counts as when it ran.
        budget: control steps of one training.
        best: the candidate that a search ended with.
    """

    task: str
    method: str
    unit: str = ""
    fitness: tuple[float, ...] = ()
    failed: int = 0
    not_run: str = ""
    env_steps: int = 0
    wall_s: float = 0.0
    budget: int = 0
    best: str | None = None


def begin(folder: Path, config: BenchConfig) -> None:
    """Make the folder of a new scoreboard. Raises UserError where it holds one, or cannot be written."""
    if (folder / SETTINGS).exists():
        raise UserError(f"{folder} holds a scoreboard already; go on with --resume {folder}, or choose another folder.")
    data = dataclasses.asdict(config)
    data["tasks"] = [registry.absolute_ref(task) for task in config.tasks]
    data["methods"] = [_absolute(method) for method in config.methods]
    started = time.strftime("%Y-%m-%d")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json_atomic(folder / SETTINGS, {"schema": SCHEMA, "started": started, **data})
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; choose another folder.") from error


def load(folder: Path) -> tuple[BenchConfig, str]:
    """The config of a scoreboard's folder and the day it was begun. Raises UserError where there is none."""
    data = read_json(folder / SETTINGS)
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise UserError(f"{folder / SETTINGS} is not the scoreboard of this version; begin a new one.")
    names = {field.name for field in dataclasses.fields(BenchConfig)}
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items() if key in names}
    return BenchConfig(**fields), str(data["started"])


def run_bench(folder: Path, executor_for: ExecutorFor, listener: Listener | None = None) -> list[Row]:
    """Run a scoreboard, or go on with one.

    Args:
        folder: Made by `begin`; may hold any part of it already.
        executor_for: Where the trainings of a task run.
        listener: Told of everything that happens.

    Returns:
        A row for each task and method, in the order of the config.

    Raises:
        UserError: the folder is in use or holds no scoreboard.
        MachineAtFault: trainings fail whatever their rewards are.
    """
    config, _ = load(folder)
    listener = listener or Listener()
    rows: list[Row] = []
    with locked(folder):
        for task in config.tasks:
            known = frozenset(row.task for row in rows)
            rows += _run_task(folder, config, task, executor_for, listener, known)
    return rows


def _run_task(
    folder: Path,
    config: BenchConfig,
    reference: str,
    executor_for: ExecutorFor,
    listener: Listener,
    earlier: frozenset[str],
) -> list[Row]:
    try:
        task = registry.make(reference)
        if task.name in earlier:
            raise UserError(
                f"another task of the scoreboard is named '{task.name}' as well; give this one another name"
            )
        place = folder / _file_name(task.name)
        known = {method: _stored(place / f"{_file_name(method)}.json") for method in config.methods}
        if all(known.values()):
            return [row for row in known.values() if row is not None]
        with executor_for(reference) as executor:
            bench = _OnTask(place, config, task, reference, executor, listener)
            return [known[method] or bench.run_or_say(method) for method in config.methods]
    except MachineAtFault:
        raise
    except UserError as error:
        # A robot that cannot be fetched, a file that is gone: the others go on, and a resume tries again.
        listener.say(f"{reference} is not run: {error}")
        return [Row(reference, method, not_run=str(error)) for method in config.methods]


class _OnTask:
    """The methods on one task."""

    def __init__(
        self, place: Path, config: BenchConfig, task: Task, reference: str, executor: Executor, listener: Listener
    ) -> None:
        self.place = place
        self.config = config
        self.task = task
        self.reference = reference
        self.executor = executor
        self.listener = listener
        iterations = max(1, round(config_for(task).iterations * config.budget))
        self.train = config_for(task, {"iterations": iterations})

    def run_or_say(self, method: str) -> Row:
        """A method's row, or one that says why it cannot be run: a recording that is gone, a designer that stopped."""
        try:
            return self.run(method)
        except MachineAtFault:
            raise  # whatever comes next would fail as well; a resume goes on here
        except UserError as error:
            self.listener.say(f"{self.task.name}: {method} is not run: {error}")
            return self._row(method, not_run=str(error))

    def run(self, method: str) -> Row:
        """A method's row; stored once it has figures, so that a reason that passes is tried again."""
        kind, _, place = method.partition(":")
        self.listener.say(f"{self.task.name}: {method}")
        if kind == "replay" and _other_task(Path(place), self.task, self.reference):
            row = self._row(method, not_run=f"the recording is of task '{recorded_task(Path(place))}'")
        elif kind in SEARCHES:
            row = self._search(method, Path(place) if kind == "replay" else None)
        else:
            row = self._reward(method, find_reward(place, self.task, self.reference) if place else None)
        if not row.not_run:
            write_json_atomic(self.place / f"{_file_name(method)}.json", dataclasses.asdict(row))
        return row

    def _row(self, method: str, **fields: Any) -> Row:
        return Row(self.task.name, method, self.task.fitness_unit, budget=self.train.env_steps, **fields)

    def _reward(self, method: str, source: RewardSource | None) -> Row:
        """A reward that is there: `source`, or the task's own of that name."""
        where = (registry.absolute_ref(self.reference), self.train)
        limits = {name: getattr(self.config, name) for name in ("seed", "threads", "time_limit_s")}
        fresh = finals.Fresh(self.task, *where, self.place / _file_name(method), seeds=self.config.seeds, **limits)
        trainings = fresh.baseline(method) if source is None else fresh.given(source)
        if not trainings:
            return self._row(method, not_run=f"the task has no {method} reward")
        for training in trainings:
            finals.fetch_cached(training, self.task, self.place)
        results: list[Mapping[str, Any]] = []

        def on_result(training: Training, result: dict[str, Any]) -> None:
            results.append({**result, "seed": training.request.seed})
            if result["status"] == "ok":
                finals.keep_in_cache(training, self.task, self.place)

        run_trainings(trainings, self.executor, self.listener, on_result, finals.probe(self.place, *where, **limits))
        results.sort(key=lambda result: result["seed"])
        return self._row(method, **_over_seeds(results), env_steps=_steps(results), wall_s=_wall_s(results))

    def _search(self, method: str, recording: Path | None) -> Row:
        folder = self.place / _file_name(method)
        if not (folder / CONFIG_FILE).exists():
            start_folder(self._search_config(recording), folder)
        config = load_config(folder)
        designer = create(config.designer, search_dir=folder, say=self.listener.say, task_name=config.task)
        designer.check()
        person = Recorded(recorded_feedback(recording)) if recording is not None else None
        found = run_search(folder, config, designer, self.executor, self.listener, person)
        archive = Archive(folder / DATABASE, create=False, read_only=True)
        parts = [run for role in ("candidate", "rung") for run in archive.runs(role)]
        trained = archive.runs("final")
        archive.close()
        if found.best is None:
            return self._row(method, not_run="no reward of the search was scored")
        finished = [run.result for run in sorted(trained, key=lambda run: run.seed)]
        told = [(run.candidate_id or "", run.seed, _steps([run.result]), _wall_s([run.result])) for run in parts]
        # Steps and wall time of a rung both count from the start of its training.
        steps = spent((name, seed, cost) for name, seed, cost, _ in told) + _steps(finished)
        wall_s = spent((name, seed, cost) for name, seed, _, cost in told) + _wall_s(finished)
        over = _over_seeds(finished)
        return self._row(method, **over, env_steps=int(steps), wall_s=wall_s, best=found.best.candidate_id)

    def _search_config(self, recording: Path | None) -> SearchConfig:
        """A search with the bench's budget; what a recorded one was told besides stays."""
        shared = {
            "task": self.reference,
            "final_seeds": self.config.seeds,
            "train": {"iterations": self.train.iterations},
            "seed": self.config.seed,
            "threads": self.config.threads,
            "time_limit_s": self.config.time_limit_s,
            "video": False,
        }
        if recording is None:
            own = {"samples": self.config.samples, "generations": self.config.generations}
            return SearchConfig(**shared, **own, designer=DesignerConfig(designer="evolution"))
        settings = {**recorded_settings(recording), **shared}
        return SearchConfig(**settings, designer=DesignerConfig(designer="replay", replay_from=recording))


def _over_seeds(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    good = [result["fitness"] for result in results if result["status"] == "ok"]
    return {"fitness": tuple(good), "failed": len(results) - len(good)}


def _steps(results: Sequence[Mapping[str, Any]]) -> int:
    return sum(int(result.get("env_steps") or 0) for result in results)


def _wall_s(results: Sequence[Mapping[str, Any]]) -> float:
    return sum(float(result.get("wall_s") or 0.0) for result in results)


def _stored(path: Path) -> Row | None:
    if not path.is_file():
        return None
    data = read_json(path)
    return Row(**{**data, "fitness": tuple(data["fitness"])})


def _other_task(recording: Path, task: Task, reference: str) -> bool:
    """Whether a recording is of another task; a recording of a file is compared by the file's name."""
    found = recorded_task(recording)
    return found is not None and found not in (task.name, Path(reference).name)


def _absolute(method: str) -> str:
    kind, colon, folder = method.partition(":")
    return f"{kind}:{Path(folder).resolve()}" if colon else method


def _file_name(name: str) -> str:
    kind, colon, folder = name.partition(":")
    text = f"{kind}-{Path(folder).name}" if colon else name
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)
