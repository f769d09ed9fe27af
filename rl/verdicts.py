"""How a training begins and ends, alone or as one of a population: its reward, what it fails of, its result.

A training ends with a status, not with an exception, when the reward program raises (reward_error) or is
refused (rejected), a reward or the policy is not finite (nonfinite_*), most episodes end because the
simulation diverged (diverged), or the time is up (time_limit). None of these has a fitness.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rewards.function import RewardFunction, build_reward
from rewards.result import RewardError
from rl import checkpoint
from rl.evaluate import Evaluation, evaluate
from rl.evaluator import Evaluator
from rl.record import APART, RESULT, TrainRequest, error_entry, make_result, write_json_atomic
from tasks.errors import UserError
from tasks.task import Task

DIVERGED_SHARE = 0.5
"""A training ends as "diverged" when more than this share of recent episodes ended by a diverged
simulation."""
DIVERGED_WINDOW = 10
"""Recent: the last so many iterations,"""
DIVERGED_MIN_EPISODES = 16
"""and at least so many episodes, so that one bad world at the start does not end a training."""


class TrainingFailed(Exception):
    """A training came to an end that has a status of its own."""

    def __init__(self, status: str, kind: str, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.error = error_entry(kind, message, line)


def nonfinite_reward(iteration: int, count: int, of: int, components: Sequence[str]) -> TrainingFailed:
    """`count` of `of` rewards of an iteration are not finite, by `components` if these are not either."""
    where = f"components: {', '.join(components)}" if components else "every component is finite, only the total is not"
    message = f"iteration {iteration}: {count} of {of} rewards are not finite; {where}"
    return TrainingFailed("nonfinite_reward", "NonFiniteReward", message)


def check_policy(iteration: int, losses: Mapping[str, float], weights_finite: bool) -> None:
    """Raises TrainingFailed if a loss or a weight is not finite after the update of an iteration."""
    bad = [f"{name} loss" for name, value in losses.items() if not math.isfinite(value)]
    if not weights_finite:
        bad.append("network weights")
    if bad:
        message = f"iteration {iteration}: not finite after the update: {', '.join(bad)}"
        raise TrainingFailed("nonfinite_policy", "NonFinitePolicy", message)


def check_divergence(iteration: int, recent: Iterable[tuple[int, int]]) -> None:
    """Raises TrainingFailed if too many worlds diverged. recent: (diverged, ended) episodes of the last
    `DIVERGED_WINDOW` iterations."""
    recent = list(recent)
    diverged, ended = sum(d for d, _ in recent), sum(e for _, e in recent)
    if ended >= DIVERGED_MIN_EPISODES and diverged > DIVERGED_SHARE * ended:
        message = (
            f"iteration {iteration}: the simulation diverged in {diverged} of the last {ended} "
            "episodes; the reward drives the robot to states that the physics cannot follow"
        )
        raise TrainingFailed("diverged", "Diverged", message)


def out_of_time(limit_s: float, iteration: int) -> TrainingFailed:
    """The time is up after `iteration` iterations."""
    message = f"time limit of {limit_s:g} s reached after {iteration} iterations"
    return TrainingFailed("time_limit", "TimeLimit", message)


def reward_error_entry(error: RewardError, iteration: int | None = None) -> dict[str, Any]:
    """The "error" of a result for a reward program that raised, in `iteration` or before the first."""
    when = f" (in iteration {iteration})" if iteration is not None else ""
    return error_entry(error.error_type, f"{error}{when}", error.line or None)


def make_reward(request: TrainRequest, task: Task, run_dir: Path) -> RewardFunction | dict[str, Any]:
    """The reward that a request trains under; where there is none, the result that says why, which is written."""
    limit_s = request.config.compile_reward_s or None
    try:
        return build_reward(request.reward, task.signal_table, request.reward_graph, compile_limit_s=limit_s)
    except RewardError as error:
        status, entry = "reward_error", reward_error_entry(error)
    except UserError as error:
        status, entry = "rejected", error_entry("UserError", str(error))
    result = make_result(request, status, error=entry, fitness_unit=task.fitness_unit)
    write_json_atomic(run_dir / RESULT, result)
    return result


def measure(
    request: TrainRequest, task: Task, path: Path, threads: int, evaluator: Evaluator | None = None
) -> Evaluation:
    """Held-out evaluation of checkpoint `path`, by `evaluator` if there is one; its meta file then says the fitness.

    Raises UserError if the fitness is not finite.
    """
    episodes, seed, config = request.config.eval_episodes, request.eval_seed, request.config
    if evaluator is not None:
        evaluation = evaluator.evaluate(
            path, episodes=episodes, seed=seed, num_threads=threads, matmul_precision=config.matmul_precision
        )
    else:
        # Whatever trained, fitness is measured by one engine: the task's own choice, MuJoCo's C engine.
        policy = checkpoint.load_policy(path, task).to(task.default_device())
        evaluation = evaluate(task, policy, episodes=episodes, seed=seed, num_threads=threads)
    checkpoint.add_to_meta(path, fitness=evaluation.fitness, fitness_std=evaluation.fitness_std)
    return evaluation


def training_result(
    request: TrainRequest,
    fitness_unit: str,
    status: str,
    evaluation: Evaluation | None,
    error: dict[str, Any] | None,
    *,
    env_steps: int,
    iterations: int,
    wall_s: float,
    checkpoint: str | None,
) -> dict[str, Any]:
    """A whole result.json of a training that has begun."""
    values: dict[str, Any] = {"error": error, "fitness_unit": fitness_unit}
    if evaluation is not None:
        values |= {
            "fitness": evaluation.fitness,
            "fitness_std": evaluation.fitness_std,
            "eval": {
                "episodes": len(evaluation.per_episode),
                "episode_length_s": evaluation.episode_length_s,
                "terminations": evaluation.terminations,
                "truncations": evaluation.truncations,
                "diverged": evaluation.diverged,
                "seed": evaluation.seed,
                "behaviour": evaluation.behaviour,
            },
        }
    return make_result(
        request,
        status,
        env_steps=env_steps,
        iterations=iterations,
        wall_s=round(wall_s, 3),
        steps_per_s=round(env_steps / wall_s, 1) if wall_s else None,
        checkpoint=checkpoint,
        **values,
    )


def remove_earlier(run_dir: Path, *, all_of_it: bool) -> None:
    """What an earlier training left in the folder, or only the files that it did not finish."""
    whole = ("model_*.pt", "model_*.json", RESULT, APART, "events.out.tfevents.*")
    for pattern in (".*.part", *(whole if all_of_it else ())):
        for path in run_dir.glob(pattern):
            path.unlink()
