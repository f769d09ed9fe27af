"""One training: PPO on one reward, then held-out evaluation. What it writes is described in `rl.record`.

Failures are statuses of the result (see `rl.verdicts`). No NaN is turned into a number anywhere; the one reward that
is replaced is that of a world that diverged (see `rl.rsl_adapter`).
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rewards.function import RewardFunction
from rewards.result import RewardError
from rewards.source import RewardSource
from rl import checkpoint, progress
from rl.evaluate import Evaluation
from rl.evaluator import Evaluator
from rl.failures import device_failure
from rl.record import RESULT, RunWriter, TrainRequest, write_json_atomic
from rl.rsl_adapter import ReturnDeviation, RewardedStep, RslVecEnv, make_ppo
from rl.statistics import TrainingStatistics
from rl.verdicts import (
    DIVERGED_WINDOW,
    TrainingFailed,
    check_divergence,
    check_policy,
    make_reward,
    measure,
    nonfinite_reward,
    out_of_time,
    remove_earlier,
    reward_error_entry,
    training_result,
)
from tasks import registry
from tasks.env import make_env
from tasks.errors import UserError
from tasks.task import Task

OnIteration = Callable[[dict[str, Any]], None]


def train(
    request: TrainRequest,
    run_dir: Path,
    *,
    on_iteration: OnIteration | None = None,
    on_reward: Callable[[], None] | None = None,
    on_damaged: Callable[[str], None] | None = None,
    evaluator: Evaluator | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Train, evaluate and write run_dir/result.json; return its content.

    on_iteration is called with each metrics line, on_reward once, when the reward is there and no other process is
    needed any more, on_damaged with a line for each damaged checkpoint. `evaluator`, a process that has no reward,
    measures the fitness; without one this process does. With `resume` the training continues after the
    newest sound checkpoint in the folder, if there is one; worlds start new episodes there. Without, what an earlier
    training left is removed. A request with a `start_iteration` always goes on, from that iteration at least.
    Sets torch's threads, product precision and global seed for this process.

    Raises UserError if the task, device or checkpoint cannot be used.
    """
    run_dir = Path(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    resume = resume or request.start_iteration > 0
    task = registry.make(request.task)
    remove_earlier(run_dir, all_of_it=not resume)
    reward = make_reward(request, task, run_dir)
    if isinstance(reward, dict):
        return reward
    if on_reward is not None:
        on_reward()
    torch.set_float32_matmul_precision(request.config.matmul_precision)
    progress.beat("worlds")
    training = Training(request, task, reward, run_dir, resume=resume, on_damaged=on_damaged)
    try:
        result = _run(training, on_iteration, evaluator)
    finally:
        training.close()
    write_json_atomic(run_dir / RESULT, result)
    return result


def _run(training: Training, on_iteration: OnIteration | None, evaluator: Evaluator | None) -> dict[str, Any]:
    request, config = training.request, training.request.config
    try:
        while training.iteration < config.iterations:
            metrics = training.run_iteration()
            if on_iteration is not None:
                on_iteration(metrics)
            last = training.iteration == config.iterations
            if last or training.iteration % config.save_interval == 0:
                training.save(metrics["fitness"])
            if not last and request.time_limit_s is not None and training.elapsed_s() > request.time_limit_s:
                training.save(metrics["fitness"])
                raise out_of_time(request.time_limit_s, training.iteration)
    except TrainingFailed as failure:
        return training.result(failure.status, error=failure.error)
    except RewardError as error:
        if device_failure(error.__cause__):
            raise  # the device failed while the reward ran; another one may serve
        return training.result("reward_error", error=reward_error_entry(error, training.iteration + 1))
    assert training.saved is not None, "the last iteration is always saved"
    path = training.run_dir / training.saved
    evaluation = measure(request, training.task, path, training.threads, evaluator)
    return training.result("ok", evaluation)


class Training:
    """The state of one training: worlds, PPO, statistics and the counters."""

    def __init__(
        self,
        request: TrainRequest,
        task: Task,
        reward: RewardFunction,
        run_dir: Path,
        *,
        resume: bool = False,
        on_damaged: Callable[[str], None] | None = None,
    ) -> None:
        """Build everything; with `resume` and a sound checkpoint in `run_dir`, in the state of that checkpoint."""
        self.request, self.task, self.run_dir = request, task, run_dir
        config = request.config
        found = checkpoint.latest(run_dir, on_damaged) if resume else None
        meta = checkpoint.read_meta(found) if found else None
        self.iteration = int(meta["iteration"]) if meta else 0
        if self.iteration < request.start_iteration:
            raise UserError(
                f"{run_dir}: there is no sound checkpoint of iteration {request.start_iteration}, from which the "
                "training is to go on; train it from the start."
            )
        self.env_steps = int(meta["env_steps"]) if meta else 0
        self.saved: str | None = found.name if found else None
        self.threads = request.threads or available_threads()
        torch.set_num_threads(1)  # physics and updates bring their own threads
        torch.manual_seed(request.seed)
        # A resumed training must not replay the episodes of its first iterations.
        self.env = make_env(
            task,
            config.num_envs,
            seed=(request.seed + 1_000_003 * self.iteration) % 2**63,
            num_threads=self.threads,
            backend=request.backend,
            device=request.device,
            randomize=request.randomize,
        )
        self.deviation = ReturnDeviation(config.num_envs, config.ppo.gamma, request.device)
        normalise = config.ppo.reward_normalization
        self.vec_env = RslVecEnv(self.env, self.env.replace_reward(reward), self.deviation if normalise else None)
        self.ppo = make_ppo(self.vec_env, config.ppo, config.steps_per_env, self.threads)
        self.meta = checkpoint.make_meta(
            task, request.task, self.env.num_observations, self.env.num_actions, config.ppo
        ) | {"reward_sha256": RewardSource(request.reward).sha256}
        if found and meta:
            self._restore(found, meta)
        checkpoint.remove_after(run_dir, self.iteration)
        # Worlds that all start together end together: PPO would see the ends of episodes only now and then.
        self.vec_env.episode_length_buf = torch.randint_like(self.env.episode_step, self.env.max_episode_steps)
        self.statistics = TrainingStatistics(self.env)
        self._divergences: deque[tuple[int, int]] = deque(maxlen=DIVERGED_WINDOW)
        self.writer = RunWriter(run_dir, keep_until=self.iteration)
        self._wall_before = float(self.writer.kept[-1]["wall_s"]) if self.writer.kept else 0.0
        self._started = time.monotonic()
        self._wall_s = self._wall_before
        self.ppo.train_mode()
        self._observation = self.vec_env.get_observations()

    def elapsed_s(self) -> float:
        """Seconds since this process began to train."""
        return time.monotonic() - self._started

    def run_iteration(self) -> dict[str, Any]:
        """One rollout and one update; writes and returns the metrics line.

        Raises TrainingFailed if a reward, a loss or the policy is not finite, or too many worlds diverged;
        RewardError if the reward program raises.
        """
        began = time.monotonic()
        config = self.request.config
        with torch.inference_mode():
            steps = self._rollout()
            self._check_reward(steps)
            self.ppo.compute_returns(self._observation)
        losses = self.ppo.update()
        self.iteration += 1
        new_steps = config.num_envs * config.steps_per_env
        self.env_steps += new_steps
        self._check_policy(losses)
        with torch.inference_mode():
            collected = self.statistics.collect()
            noise_std = float(self.ppo.actor.output_std.mean())
        self._divergences.append((collected["diverged"], collected.pop("ended")))
        check_divergence(self.iteration, self._divergences)
        self._wall_s = self._wall_before + self.elapsed_s()
        metrics = {
            "iteration": self.iteration,
            "env_steps": self.env_steps,
            "wall_s": round(self._wall_s, 3),
            **collected,
            "learning_rate": self.ppo.learning_rate,
            "noise_std": noise_std,
            "value_loss": losses["value"],
            "surrogate_loss": losses["surrogate"],
            "steps_per_s": round(new_steps / (time.monotonic() - began), 1),
        }
        lost = self.env.collect_overflows()
        if lost:
            metrics["overflow"] = lost
        self.writer.write(metrics)
        self.writer.write_apart({"iteration": self.iteration}, self.env.log_apart())
        return metrics

    def _rollout(self) -> list[RewardedStep]:
        steps = []
        for _ in range(self.request.config.steps_per_env):
            actions = self.ppo.act(self._observation)
            self._observation, reward, done, extras = self.vec_env.step(actions)
            self.ppo.process_env_step(self._observation, reward, done, extras)
            step = self.vec_env.last
            assert step is not None
            self.statistics.add(step)
            steps.append(step)
            progress.beat("training")
        return steps

    def _check_reward(self, steps: list[RewardedStep]) -> None:
        # One host synchronisation for the whole rollout; details are looked up only when something is wrong.
        bad = ~torch.isfinite(torch.stack([step.reward for step in steps]))
        count = int(bad.sum())
        if not count:
            return
        names = [
            name for name in steps[0].components if any(_nonfinite(s.components[name], s) for s in steps)
        ]  # fmt: skip
        raise nonfinite_reward(self.iteration + 1, count, bad.numel(), names)

    def _check_policy(self, losses: dict[str, float]) -> None:
        parameters = [*self.ppo.actor.parameters(), *self.ppo.critic.parameters()]
        finite = torch.stack([p.detach().isfinite().all() for p in parameters]).all()
        check_policy(self.iteration, losses, bool(finite))

    def save(self, fitness: float | None) -> None:
        """Write a checkpoint. `fitness`: of the training episodes of the iteration, for the meta file."""
        state = {
            **self.ppo.save(),
            "return_moments": self.deviation.moments,
            "torch_rng": torch.get_rng_state(),
            "iteration": self.iteration,
        }
        meta = {**self.meta, "env_steps": self.env_steps, "training_fitness": fitness}
        self.saved = checkpoint.save(self.run_dir, self.iteration, state, meta).name

    def _restore(self, path: Path, meta: dict[str, Any]) -> None:
        checkpoint.check_same(path, meta, self.meta)
        state = checkpoint.load_state(path, self.request.device)
        try:
            self.ppo.load(state, None, True)
            self.deviation.moments = state["return_moments"]
            torch.set_rng_state(state["torch_rng"].cpu())
        except (KeyError, RuntimeError, ValueError) as error:
            raise UserError(f"{path}: cannot resume ({' '.join(str(error).split())[:160]}).") from None

    def result(
        self, status: str, evaluation: Evaluation | None = None, error: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """The result of the training as it stands."""
        return training_result(
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

    def close(self) -> None:
        """Close the files and the worlds."""
        self.writer.close()
        self.env.close()


def _nonfinite(component: Tensor, step: RewardedStep) -> bool:
    return bool((~torch.isfinite(component) & ~step.env.reasons["diverged"]).any())


def available_threads() -> int:
    """CPU threads that this process may use; not all that the machine has."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
