"""One candidate of a population: its counters, files and result, which are those of a lone training."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rewards.source import RewardSource
from rl import checkpoint
from rl.evaluate import Evaluation
from rl.population_worlds import PopulationWorlds
from rl.record import RESULT, RunWriter, TrainRequest, write_json_atomic
from rl.verdicts import DIVERGED_WINDOW, training_result
from tasks.errors import UserError
from tasks.task import Task


class Candidate:
    """What is kept of one training of a population.

    Args:
        request: What it was told.
        run_dir: Its folder.
        task: What is simulated.
        worlds: All worlds of the population, for the sizes of observation and action.
        results: Run id -> result, where it puts its own.
    """

    def __init__(
        self,
        request: TrainRequest,
        run_dir: Path,
        task: Task,
        worlds: PopulationWorlds,
        results: dict[str, dict[str, Any]],
    ) -> None:
        self.request, self.run_dir, self.task = request, run_dir, task
        self.iteration = self.env_steps = 0
        self.saved: str | None = None
        self.result: dict[str, Any] | None = None
        """Once the training has ended."""
        self._results = results
        self.divergences: deque[tuple[int, int]] = deque(maxlen=DIVERGED_WINDOW)
        """(diverged, ended) episodes of the last iterations."""
        config = request.config.ppo
        self.meta = checkpoint.make_meta(task, request.task, worlds.num_observations, worlds.num_actions, config)
        self.meta["reward_sha256"] = RewardSource(request.reward).sha256
        self._writer: RunWriter | None = None
        self._wall_before = self._wall_s = 0.0

    def restore(self, load: Callable[[dict[str, Any]], None], on_damaged: Callable[[str], None] | None) -> None:
        """Go on from the checkpoint of the request's `start_iteration`: `load` is given its state.

        Raises UserError if it is not there, or is of another training.
        """
        start = self.request.start_iteration
        if not start:
            return
        path = checkpoint.latest(self.run_dir, on_damaged)
        meta = checkpoint.read_meta(path) if path else None
        if path is None or meta is None or meta["iteration"] != start:
            raise UserError(
                f"{self.run_dir}: its newest sound checkpoint is not the one of iteration {start}, from which the "
                "training is to go on; train it from the start."
            )
        checkpoint.check_same(path, meta, self.meta)
        state = checkpoint.load_state(path, self.request.device)
        try:
            load(state)
        except (KeyError, RuntimeError, ValueError) as error:
            raise UserError(f"{path}: cannot resume ({' '.join(str(error).split())[:160]}).") from None
        self.iteration, self.env_steps, self.saved = start, int(meta["env_steps"]), path.name

    def open(self) -> None:
        """Open the files; what is of later iterations is removed."""
        checkpoint.remove_after(self.run_dir, self.iteration)
        self._writer = RunWriter(self.run_dir, keep_until=self.iteration)
        self._wall_before = self._wall_s = float(self._writer.kept[-1]["wall_s"]) if self._writer.kept else 0.0

    def count_iteration(self) -> None:
        """One more iteration has been learnt from."""
        config = self.request.config
        self.iteration += 1
        self.env_steps += config.num_envs * config.steps_per_env

    def write(self, figures: dict[str, Any], elapsed_s: float, took_s: float) -> dict[str, Any]:
        """Write and return the metrics line of the iteration. elapsed_s, took_s: its share of the seconds since the
        training began and of those of the iteration."""
        config = self.request.config
        self._wall_s = self._wall_before + elapsed_s
        metrics = {
            "iteration": self.iteration,
            "env_steps": self.env_steps,
            "wall_s": round(self._wall_s, 3),
            **figures,
            "steps_per_s": round(config.num_envs * config.steps_per_env / took_s, 1),
        }
        assert self._writer is not None
        self._writer.write(metrics)
        return metrics

    def save(self, state: dict[str, Any], fitness: float | None) -> None:
        """Write a checkpoint. fitness: of the training episodes of the iteration, for the meta file."""
        meta = {**self.meta, "env_steps": self.env_steps, "training_fitness": fitness}
        self.saved = checkpoint.save(self.run_dir, self.iteration, {**state, "iteration": self.iteration}, meta).name

    def end(
        self, status: str, evaluation: Evaluation | None = None, error: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """The training is over: its result, which is written."""
        result = training_result(
            self.request,
            self.task.fitness_unit,
            status,
            evaluation,
            error,
            env_steps=self.env_steps,
            iterations=self.iteration,
            wall_s=self._wall_s,
            checkpoint=self.saved,
        )
        return self.take(result)

    def take(self, result: dict[str, Any]) -> dict[str, Any]:
        """Have this result, and write it."""
        self.close()
        write_json_atomic(self.run_dir / RESULT, result)
        self.result = self._results[self.request.run_id] = result
        return result

    def close(self) -> None:
        """Close the files."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
