"""The last word on a search: the best reward, the human one and the sparse one on fresh seeds, same budget.

Trainings of the human and the sparse reward depend on the task, the program and the budget alone, so their results
are kept beside the searches and used again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from eureka.archive import Archive, Run
from eureka.candidate import Candidate
from eureka.training import Training, finished_result
from rewards.function import reward_graph
from rewards.library.library import ZERO, load
from rewards.source import RewardSource
from rl.config import TrainConfig, to_json
from rl.record import TrainRequest
from tasks.errors import UserError
from tasks.registry import user_file
from tasks.task import Task

FINAL_SEED_OFFSET = 1000  # final trainings share no seed with candidates
EVAL_SEED = 700_001  # held-out episodes of candidates; no training draws from it
FINAL_EVAL_SEED = 800_001  # those of the finals: the search has not selected on them


@dataclass(frozen=True)
class Fresh:
    """Trainings on fresh seeds with one budget: what all of a comparison share."""

    task: Task
    task_ref: str
    """As a request names it."""
    config: TrainConfig
    folder: Path
    """Each training has a folder below it, named by its run id."""
    seed: int
    """The search's; the fresh ones follow `FINAL_SEED_OFFSET` above it."""
    seeds: int
    threads: int
    time_limit_s: float | None
    simulated: Mapping[str, str] = field(default_factory=dict)
    """`backend` and `device` of the requests."""

    def final(self, best: Candidate, graph: dict[str, Any] | None) -> list[Training]:
        """Those of a search's best reward; without its graph each traces the program itself."""
        assert best.source is not None
        return self._of("final", RewardSource(best.source, best.candidate_id), graph, best.candidate_id)

    def baseline(self, role: str) -> list[Training]:
        """Those of the human or the sparse reward; none where the task (a user's) brings no such reward."""
        source = baseline_source(self.task, role)
        return [] if source is None else self._of(role, source, _graph_or_none(source, self.task), None)

    def given(self, source: RewardSource) -> list[Training]:
        """Those of any reward, under the role "reward"."""
        return self._of("reward", source, _graph_or_none(source, self.task), None)

    def _of(
        self, role: str, source: RewardSource, graph: dict[str, Any] | None, candidate: str | None
    ) -> list[Training]:
        trainings = []
        for number in range(self.seeds):
            seed = self.seed + FINAL_SEED_OFFSET + number
            request = TrainRequest(
                run_id=f"{role}_s{seed}",
                candidate_id=candidate,
                task=self.task_ref,
                reward=source.text,
                reward_graph=graph,
                reward_origin=source.origin,
                config=self.config,
                seed=seed,
                eval_seed=FINAL_EVAL_SEED,
                threads=self.threads,
                time_limit_s=self.time_limit_s,
                **self.simulated,
            )
            trainings.append(Training(request, self.folder / request.run_id))
        return trainings


def probe(
    folder: Path,
    task_ref: str,
    config: TrainConfig,
    *,
    seed: int,
    threads: int,
    time_limit_s: float | None,
    simulated: Mapping[str, str] | None = None,
) -> Training:
    """The shortest training of a task, without a reward: whether the machine trains at all. simulated: the request's
    fields of backend and device."""
    request = TrainRequest(
        run_id="probe",
        task=task_ref,
        reward=ZERO,
        config=dataclasses.replace(config, iterations=1, eval_episodes=1),
        seed=seed,
        eval_seed=EVAL_SEED,
        threads=threads,
        time_limit_s=time_limit_s,
        **(simulated or {}),
    )
    return Training(request, folder / "probe")


def _graph_or_none(source: RewardSource, task: Task) -> dict[str, Any] | None:
    """The graph of a baseline, traced once here instead of in each of its trainings; None where it has none, which its
    trainings then report."""
    try:
        return reward_graph(source.text, task.signal_table)
    except UserError:
        return None


def baseline_source(task: Task, role: str) -> RewardSource | None:
    """The human or sparse program of a task; None where it has none."""
    try:
        return load(task.name, role, user_file(task))
    except UserError:
        return None


def role_of(training: Training) -> str:
    """The role in a final training's run id."""
    return training.run_id.rpartition("_s")[0]


def fetch_cached(training: Training, task: Task, runs: Path) -> None:
    """Copy an earlier, equal training of a baseline into its place, if there is one and none is there yet."""
    cached = _cache_place(training, task, runs)
    if role_of(training) == "final" or finished_result(training) is not None or not cached.is_dir():
        return
    if training.run_dir.exists():
        shutil.rmtree(training.run_dir)
    part = training.run_dir.with_name(f".{training.run_dir.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    training.run_dir.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(cached, part)
    part.rename(training.run_dir)


def keep_in_cache(training: Training, task: Task, runs: Path) -> None:
    """Copy a finished baseline training to where later searches find it."""
    cached = _cache_place(training, task, runs)
    if role_of(training) == "final" or cached.exists():
        return
    part = cached.with_name(f".{cached.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    cached.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(training.run_dir, part)
    part.rename(cached)


def _cache_place(training: Training, task: Task, runs: Path) -> Path:
    """Where a baseline is kept: named by all that its result depends on."""
    request = training.request
    facts = {
        "task": Path(inspect.getfile(type(task))).read_text(encoding="utf-8"),
        "model": _model_digest(task),
        "class": type(task).__name__,
        "reward": request.reward,
        "config": to_json(request.config),
        "eval_seed": request.eval_seed,
        "threads": request.threads,
        "mujoco": mujoco.__version__,
    }
    if request.backend != "native":
        facts["backend"] = request.backend
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    return runs / "baselines" / digest / f"{role_of(training)}_s{request.seed}"


def _model_digest(task: Task) -> str:
    """Of the compiled model, so that the files count that it was made of: includes, meshes, a robot."""
    model = task.build_model()
    compiled = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, compiled)
    return hashlib.sha256(compiled).hexdigest()


def final_run(training: Training, result: dict, folder: Path) -> Run:
    """The archive's row of a final training."""
    return Run(
        run_id=training.run_id,
        candidate_id=training.request.candidate_id,
        role=role_of(training),
        seed=training.request.seed,
        folder=str(training.run_dir.relative_to(folder)),
        status=result["status"],
        fitness=result["fitness"],
        fitness_std=result["fitness_std"],
        result=result,
    )


def fitness_per_seed(archive: Archive, role: str) -> list[float]:
    """Fitness of the trainings of a role that ended well, by seed."""
    runs = sorted(archive.runs(role), key=lambda run: run.seed)
    return [run.fitness for run in runs if run.status == "ok" and run.fitness is not None]
