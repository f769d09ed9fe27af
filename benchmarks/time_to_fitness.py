"""Seconds of training until a task's fitness passes a threshold, with the human reward and the task's preset.

    python benchmarks/time_to_fitness.py --tasks ant-run --seeds 3 --threads 2

Training is paused for a held-out evaluation (deterministic actions, whole episodes) about every fortieth of
the task's time limit; the clock stands still meanwhile, so a figure is at most one such interval too large.
Setting up the worlds and the network is not counted either (well under a second). Prints one line per seed
and the worst of each task.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

# As the command line and the workers do: spinning OpenMP threads would take the cores from the physics.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("KMP_BLOCKTIME", "0")

import torch

from rewards.function import build_reward
from rewards.library.library import load
from rl import checkpoint
from rl.config import config_for
from rl.evaluate import evaluate
from rl.record import TrainRequest
from rl.train import Training, available_threads
from tasks import registry

EVAL_SEED = 1_000_003
EVAL_EPISODES = 32


@dataclass(frozen=True)
class Goal:
    """What counts as solved, and how long a training may take."""

    fitness: float
    limit_s: float


GOALS = {
    "cartpole-balance": Goal(9.5, 60.0),
    "cartpole-swingup": Goal(0.6, 60.0),
    "ball-balance": Goal(9.0, 120.0),
    "quadcopter-hover": Goal(-0.5, 120.0),
    "ant-run": Goal(2.0, 200.0),
    "humanoid-run": Goal(1.0, 360.0),
}
"""cartpole-swingup: about 2 s of 10 go into the swing itself; quadcopter-hover: it starts 1 to 2 m away."""


def run(name: str, seed: int, threads: int, limit_s: float, goal: float) -> tuple[float | None, float, float, int]:
    """Train until the goal or the limit: seconds to the goal (None: missed), seconds, fitness and steps at
    the end."""
    task = registry.make(name)
    config = config_for(task)
    torch.set_float32_matmul_precision(config.matmul_precision)
    source = load(name, "human")
    interval_s, seconds, next_s, fitness = limit_s / 40.0, 0.0, 0.0, float("-inf")
    with tempfile.TemporaryDirectory() as folder:
        request = TrainRequest(
            run_id="time",
            task=name,
            reward=source.text,
            config=config,
            seed=seed,
            eval_seed=EVAL_SEED,
            threads=threads,
        )
        training = Training(request, task, build_reward(source.text, task.signal_table), Path(folder))
        next_s = interval_s
        while seconds < limit_s and fitness < goal:
            began = time.perf_counter()
            training.run_iteration()
            seconds += time.perf_counter() - began
            if seconds >= next_s:
                next_s = seconds + interval_s
                fitness = _evaluate(training, seed)
        steps = training.env_steps
        training.close()
    return (seconds if fitness >= goal else None), seconds, fitness, steps


def _evaluate(training: Training, seed: int) -> float:
    rng = torch.get_rng_state()
    training.save(None)
    path = checkpoint.latest(training.run_dir)
    assert path is not None
    policy = checkpoint.load_policy(path, training.task)
    result = evaluate(
        training.task, policy, episodes=EVAL_EPISODES, seed=EVAL_SEED + seed, num_threads=training.threads
    )
    torch.set_rng_state(rng)
    return result.fitness


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tasks", nargs="+", default=list(GOALS), choices=list(GOALS), help="task names (default: all)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0: all that this process may use")
    parser.add_argument(
        "--limit", type=float, default=None, help="seconds of training before giving up (default: per task)"
    )
    parser.add_argument("--goal", type=float, default=None, help="fitness to reach (default: per task)")
    args = parser.parse_args()
    threads = args.threads or available_threads()
    print(f"{threads} threads; human reward, preset of each task, {EVAL_EPISODES} held-out episodes")
    print(f"{'task':18}{'goal':>8}{'seed':>6}{'seconds':>9}{'fitness':>9}{'M steps':>9}")
    for name in args.tasks:
        goal = GOALS[name].fitness if args.goal is None else args.goal
        worst: float | None = 0.0
        for seed in args.seeds:
            reached, _, fitness, steps = run(name, seed, threads, args.limit or GOALS[name].limit_s, goal)
            clock = f"{reached:9.1f}" if reached is not None else "   missed"
            print(f"{name:18}{goal:8.2f}{seed:6d}{clock}{fitness:9.2f}{steps / 1e6:9.2f}", flush=True)
            worst = None if worst is None or reached is None else max(worst, reached)
        verdict = "missed at least once" if worst is None else f"worst of {len(args.seeds)}: {worst:.1f} s"
        print(f"{name:18}{verdict}", flush=True)


if __name__ == "__main__":
    main()
