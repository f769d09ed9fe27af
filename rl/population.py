"""Many trainings in one process and one simulation: K reward candidates of the same task and settings.

Candidate k owns N of the K N worlds and learns there under its own reward what it would learn alone (see
`rl.population_ppo`, `rl.population_worlds`), and leaves the same files: metrics, checkpoints, result, with the statuses
of `rl.verdicts`. A candidate that fails is frozen: its weights stay, its worlds start anew and stand still under zero
actions, and it goes on being computed, so that no shape changes and the others go on unchanged, bit for bit.

A training's times are its share of the population's, 1/K of the clock's, so that they add up as those of trainings
one after the other do; so is its time limit.

Axes: K candidates, N worlds of each, T steps of a rollout, C the total and the components of a reward.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rewards.function import RewardFunction
from rewards.result import RewardError
from rl import progress
from rl.evaluator import Evaluator
from rl.failures import device_failure
from rl.population_learners import Learners
from rl.population_member import Candidate
from rl.population_statistics import PopulationStatistics, ReturnDeviations
from rl.population_worlds import PopulationWorlds
from rl.record import SHARED, TrainRequest, error_entry, make_result
from rl.rsl_adapter import within
from rl.train import available_threads
from rl.verdicts import (
    TrainingFailed,
    check_divergence,
    check_policy,
    make_reward,
    measure,
    nonfinite_reward,
    out_of_time,
    remove_earlier,
    reward_error_entry,
)
from tasks import registry
from tasks.env import EnvStep
from tasks.errors import UserError
from tasks.task import Task

OnIteration = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True)
class Member:
    """One training of a population."""

    request: TrainRequest
    run_dir: Path


def check_members(members: Sequence[Member]) -> None:
    """Raises UserError unless these trainings can share a simulation."""
    if not members:
        raise UserError("a population needs at least one training.")
    first = members[0].request
    for member in members[1:]:
        for field in SHARED:
            if getattr(member.request, field) != getattr(first, field):
                raise UserError(
                    f"{member.request.run_id} and {first.run_id} differ in '{field}', which a population shares; train "
                    "them apart."
                )
    for what in ("request.run_id", "run_dir"):
        known = [str(m.run_dir if what == "run_dir" else m.request.run_id) for m in members]
        if len(set(known)) != len(known):
            raise UserError(f"a population's trainings have to differ in {what}: {', '.join(known)}.")


def train_population(
    members: Sequence[Member],
    *,
    results: dict[str, dict[str, Any]] | None = None,
    on_iteration: OnIteration | None = None,
    on_rewards: Callable[[], None] | None = None,
    on_damaged: Callable[[str], None] | None = None,
    evaluator: Evaluator | None = None,
) -> dict[str, dict[str, Any]]:
    """Train all, evaluate those that came to their end, write result.json into each folder; run id -> result.

    `results` is filled as results come, and returned: what is in it when this raises, is written too.
    on_iteration is called with a run id and each of its metrics lines, on_rewards once, when the rewards are there and
    no other process is needed any more; the rest is as for `rl.train.train`. A training with a `start_iteration` goes
    on from the checkpoint in its folder; others remove what an earlier one left. A result is written as soon as it is
    known: of a failed training while others go on.

    Raises UserError if the trainings cannot share a simulation, or the task or device cannot be used.
    """
    check_members(members)
    request = members[0].request
    task = registry.make(request.task)
    results = {} if results is None else results
    ready: list[tuple[Member, RewardFunction]] = []
    for member in members:
        member.run_dir.mkdir(parents=True, exist_ok=True)
        remove_earlier(member.run_dir, all_of_it=not request.start_iteration)
        reward = make_reward(member.request, task, member.run_dir)
        if isinstance(reward, dict):
            results[member.request.run_id] = reward
        else:
            ready.append((member, reward))
    if on_rewards is not None:
        on_rewards()
    if not ready:
        return results
    torch.set_float32_matmul_precision(request.config.matmul_precision)
    progress.beat("worlds")
    population = Population(task, ready, results, on_damaged)
    try:
        population.run(on_iteration)
    finally:
        population.close()
    for candidate in population.candidates:
        if candidate.result is None:
            _evaluate(candidate, task, population.threads, evaluator)
    return results


def _evaluate(candidate: Candidate, task: Task, threads: int, evaluator: Evaluator | None) -> None:
    assert candidate.saved is not None, "the last iteration is always saved"
    try:
        path = candidate.run_dir / candidate.saved
        candidate.end("ok", measure(candidate.request, task, path, threads, evaluator))
    except UserError as error:  # of this policy: the others' can be measured
        candidate.take(make_result(candidate.request, "error", error=error_entry("UserError", str(error))))


class Population:
    """The state of a population: worlds, learners, statistics, and what is kept of each candidate."""

    def __init__(
        self,
        task: Task,
        members: Sequence[tuple[Member, RewardFunction]],
        results: dict[str, dict[str, Any]],
        on_damaged: Callable[[str], None] | None = None,
    ) -> None:
        """Build everything, in the state of the checkpoints in the members' folders where they go on from some.
        Results of those that end go into `results`."""
        self.task = task
        self.rewards = [reward for _, reward in members]
        self.count = len(members)
        request = members[0][0].request
        self.config = config = request.config
        self.threads = request.threads or available_threads()
        self.iteration = request.start_iteration
        torch.set_num_threads(1)  # physics and learners bring their own threads
        # As a lone training: one that goes on must not replay the episodes of its first iterations.
        seeds = [(m.request.seed + 1_000_003 * self.iteration) % 2**63 for m, _ in members]
        self.worlds = PopulationWorlds(
            task,
            config.num_envs,
            seeds,
            num_threads=self.threads,
            backend=request.backend,
            device=request.device,
            randomize=request.randomize,
        )
        device = self.worlds.device
        self.deviations = ReturnDeviations(self.count, config.num_envs, config.ppo.gamma, device)
        self.learners = Learners(
            [m.request.seed for m, _ in members],
            config.num_envs,
            config.steps_per_env,
            self.worlds.num_observations,
            self.worlds.num_actions,
            config.ppo,
            device,
            self.threads,
        )
        self.candidates = [Candidate(m.request, m.run_dir, task, self.worlds, results) for m, _ in members]
        self._alive = torch.ones(self.count, dtype=torch.bool, device=device)
        for k, candidate in enumerate(self.candidates):
            self._restore(k, candidate, on_damaged)
        self.worlds.episode_step.copy_(self.learners.draw_episode_steps(config.num_envs, self.worlds.max_episode_steps))
        names = [reward.components for reward in self.rewards]
        self.statistics = PopulationStatistics(task, self.worlds.max_episode_steps, self.worlds.episode_step, names)
        self._most = 1 + max(len(own) for own in names)
        self._started = time.monotonic()

    def _restore(self, k: int, candidate: Candidate, on_damaged: Callable[[str], None] | None) -> None:
        """One whose checkpoint cannot be used fails alone."""
        try:
            candidate.restore(lambda state: self._load(k, state), on_damaged)
        except UserError as error:
            self._freeze(k)
            candidate.end("error", error=error_entry("UserError", str(error)))
        else:
            candidate.open()

    def _load(self, k: int, state: dict[str, Any]) -> None:
        self.learners.load(k, state)
        self.deviations.moments[k] = state["return_moments"]

    def run(self, on_iteration: OnIteration | None = None) -> None:
        """Train until the last iteration, or until no candidate is left."""
        config = self.config
        while self.iteration < config.iterations and any(c.result is None for c in self.candidates):
            lines = self.run_iteration()
            last = self.iteration == config.iterations
            for k, metrics in lines.items():
                candidate, limit_s = self.candidates[k], self.candidates[k].request.time_limit_s
                if on_iteration is not None:
                    on_iteration(candidate.request.run_id, metrics)
                late = not last and limit_s is not None and self.elapsed_s() > limit_s
                if last or late or self.iteration % config.save_interval == 0:
                    candidate.save(self._state(k), metrics["fitness"])
                if late:
                    self._fail(k, out_of_time(limit_s, self.iteration))  # type: ignore[arg-type]

    def _state(self, k: int) -> dict[str, Any]:
        moments, rng = self.deviations.moments[k].clone(), self.learners.rng_state(k)
        return {**self.learners.save(k), "return_moments": moments, "torch_rng": rng}

    def elapsed_s(self) -> float:
        """A candidate's share of the seconds since training began."""
        return (time.monotonic() - self._started) / self.count

    def run_iteration(self) -> dict[int, dict[str, Any]]:
        """One rollout and one update of all; candidate -> its metrics line, which is written, for those that have
        not failed."""
        began = time.monotonic()
        with torch.inference_mode():
            self._check_rewards(*self._rollout())
        losses = self.learners.learn(self.worlds.observe(), self._alive)
        self.iteration += 1
        with torch.inference_mode():
            collected = self.statistics.collect()
        finite, rates, noise = self.learners.finite(), self.learners.learning_rates(), self.learners.noise_stds()
        lost = self.worlds.collect_overflows()
        took_s = (time.monotonic() - began) / self.count
        lines = {}
        for k, candidate in enumerate(self.candidates):
            if candidate.result is not None:
                continue
            candidate.count_iteration()
            try:
                check_policy(self.iteration, {name: values[k] for name, values in losses.items()}, finite[k])
                candidate.divergences.append((collected[k]["diverged"], collected[k].pop("ended")))
                check_divergence(self.iteration, candidate.divergences)
            except TrainingFailed as failure:
                self._fail(k, failure)
                continue
            figures = {
                **collected[k],
                "learning_rate": rates[k],
                "noise_std": noise[k],
                "value_loss": losses["value"][k],
                "surrogate_loss": losses["surrogate"][k],
                **({"overflow": lost} if lost else {}),
            }
            lines[k] = candidate.write(figures, self.elapsed_s(), took_s)
        return lines

    def _rollout(self) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """T steps of all; of each step the reward that was learnt from (K, N), the rewards (K, C, N), and the worlds
        that diverged (K, N)."""
        shape = (self.count, self.config.num_envs)
        learnt, rewards, diverged = [], [], []
        for _ in range(self.config.steps_per_env):
            actions = self.learners.act(self.worlds.observe())
            step = self.worlds.step(torch.where(self._alive[:, None, None], actions, 0.0))
            rewards.append(self._rewarded(step))
            diverged.append(step.reasons["diverged"].view(shape))
            done = step.done.view(shape)
            reward = torch.where(diverged[-1], 0.0, rewards[-1][:, 0])
            if self.config.ppo.reward_normalization:
                reward = within(reward / self.deviations.add(reward, done))
            learnt.append(reward)
            self.learners.record(reward, done, step.truncated.view(shape))
            self.statistics.add(step, rewards[-1])
            progress.beat("training")
        return learnt, rewards, diverged

    def _rewarded(self, step: EnvStep) -> Tensor:
        """Every candidate's reward of its own worlds, (K, C, N): the total, then the components; zeros for the rest."""
        worlds = self.config.num_envs
        rewards = torch.zeros(self.count, self._most, worlds, device=self.worlds.device)
        for k, (reward, candidate) in enumerate(zip(self.rewards, self.candidates, strict=True)):
            if candidate.result is not None:
                continue
            rows = slice(k * worlds, (k + 1) * worlds)
            try:
                total, components = reward({name: step.signals[name][rows] for name in reward.inputs})
            except RewardError as error:
                if device_failure(error.__cause__):
                    raise  # the device failed while the reward ran; another one may serve
                self._freeze(k)
                candidate.end("reward_error", error=reward_error_entry(error, self.iteration + 1))
                continue
            own = torch.stack([total, *(components[name] for name in reward.components)])
            rewards[k, : len(own)] = own
        return rewards

    def _check_rewards(self, learnt: list[Tensor], rewards: list[Tensor], diverged: list[Tensor]) -> None:
        """End candidates whose rewards are not finite, before anything is learnt from them."""
        # One host synchronisation for the whole rollout; details are looked up only when something is wrong.
        bad = (~torch.isfinite(torch.stack(learnt))).sum(dim=(0, 2)).tolist()
        for k, candidate in enumerate(self.candidates):
            if not bad[k] or candidate.result is not None:
                continue
            steps = zip(rewards, diverged, strict=True)
            wrong = torch.stack([(~torch.isfinite(r[k]) & ~d[k]).any(dim=1) for r, d in steps]).any(dim=0).tolist()
            names = [name for place, name in enumerate(self.rewards[k].components, start=1) if wrong[place]]
            of = self.config.num_envs * self.config.steps_per_env
            self._fail(k, nonfinite_reward(self.iteration + 1, bad[k], of, names))

    def _fail(self, k: int, failure: TrainingFailed) -> None:
        self._freeze(k)
        self.candidates[k].end(failure.status, error=failure.error)

    def _freeze(self, k: int) -> None:
        """Candidate k learns no more; its worlds leave whatever state they were driven to."""
        self._alive = self._alive.clone()
        self._alive[k] = False
        with torch.inference_mode():
            self.worlds.start_anew(k)

    def close(self) -> None:
        """Close files, threads and worlds."""
        for candidate in self.candidates:
            candidate.close()
        self.learners.close()
        self.worlds.close()
