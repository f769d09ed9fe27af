"""Steps per second of tasks on the Warp backend at growing numbers of worlds; one run, one table.

    python benchmarks/gpu.py                                        # a CUDA machine: the whole table
    python benchmarks/gpu.py --tasks ant-run --num-envs 4096 --goal 2.0
    python benchmarks/gpu.py --tasks cartpole-balance --num-envs 4 --device cpu --seconds 0.2     # does it run at all

The unit is the control step of one world.
env:      `TaskEnv.step` with random actions: physics, signals, terminations, resets, observations.
physics:  the share of the env's time that `step` of the simulation takes by itself.
train:    whole PPO iterations with the human reward and the task's preset at so many worlds.
lost:     worlds that ran out of room for contacts while this was measured.
With --goal also the seconds of training until held-out episodes (on MuJoCo's C engine) have that fitness; the clock
stands still while they are played. A device that is not there gives "not measured", and exit code 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from rewards.function import build_reward
from rewards.library.library import load
from rl import checkpoint
from rl.config import config_for
from rl.evaluate import evaluate
from rl.record import TrainRequest
from rl.train import Training
from tasks import registry
from tasks.env import make_env
from tasks.errors import UserError

TASKS = ("ant-run", "humanoid-run", "anymal-velocity", "g1-velocity", "allegro-reorient", "shadow-reorient")
WORLDS = (1024, 4096, 16384, 32768)
ACTION_BANK = 16
"""Different random action tensors, drawn before the clock starts."""
WARM_UP_STEPS = 10
EVAL_SEED, EVAL_EPISODES, EVALUATIONS = 1_000_003, 64, 20
"""Of the time to a fitness: it is looked at so many times within the limit."""


@dataclass(frozen=True)
class Speed:
    """One line of the table; None where it was not measured."""

    task: str
    num_envs: int
    env_steps_per_s: float | None = None
    physics_share: float | None = None
    train_steps_per_s: float | None = None
    lost_worlds: int | None = None
    seconds_to_goal: float | None = None


def timed(step: Callable[[int], object], seconds: float, device: str) -> float:
    """Calls of `step` per second, over about `seconds`; the device's work is waited for at both ends."""
    for call in range(WARM_UP_STEPS):
        step(call)
    wait(device)
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for _ in range(5):
            step(calls)
            calls += 1
        wait(device)
    return calls / (time.perf_counter() - began)


def wait(device: str) -> None:
    """Let the device finish."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def env_speed(name: str, num_envs: int, device: str, seconds: float) -> tuple[float, float, int]:
    """Env steps per second, the share of physics, and worlds that lost contacts."""
    env = make_env(registry.make(name), num_envs, backend="warp", device=device)
    bank = [torch.rand(num_envs, env.num_actions, device=device) * 2 - 1 for _ in range(ACTION_BANK)]
    with torch.inference_mode():
        steps = timed(lambda call: env.step(bank[call % ACTION_BANK]), seconds, device)
        physics = timed(lambda call: env.sim.step(), seconds, device)
    lost = sum(env.collect_overflows().values())
    env.close()
    return steps * num_envs, min(1.0, steps / physics), lost


def training(name: str, num_envs: int, device: str, folder: str) -> Training:
    """The task's preset with the human reward, at `num_envs` worlds."""
    task, source = registry.make(name), load(name, "human")
    config = config_for(task, {"num_envs": num_envs})
    torch.set_float32_matmul_precision(config.matmul_precision)
    request = TrainRequest(
        run_id="gpu",
        task=name,
        reward=source.text,
        config=config,
        seed=0,
        eval_seed=1,
        backend="warp",
        device=device,
    )
    return Training(request, task, build_reward(source.text, task.signal_table), Path(folder))


def train_speed(name: str, num_envs: int, device: str, seconds: float) -> float:
    """Env steps per second of whole PPO iterations."""
    with tempfile.TemporaryDirectory() as folder:
        run = training(name, num_envs, device, folder)
        run.run_iteration()
        began, before = time.perf_counter(), run.env_steps
        while time.perf_counter() - began < seconds:
            run.run_iteration()
        wait(device)
        speed = (run.env_steps - before) / (time.perf_counter() - began)
        run.close()
    return speed


def time_to(goal: float, name: str, num_envs: int, device: str, limit_s: float) -> float | None:
    """Seconds of training until the fitness is `goal`; None where it is not within the limit."""
    spent = 0.0
    with tempfile.TemporaryDirectory() as folder:
        run = training(name, num_envs, device, folder)
        next_s = limit_s / EVALUATIONS
        while spent < limit_s:
            began = time.perf_counter()
            run.run_iteration()
            wait(device)
            spent += time.perf_counter() - began
            if spent < next_s:
                continue
            next_s = spent + limit_s / EVALUATIONS
            run.save(None)
            path = checkpoint.latest(run.run_dir)
            assert path is not None
            policy = checkpoint.load_policy(path, run.task)
            if evaluate(run.task, policy, episodes=EVAL_EPISODES, seed=EVAL_SEED).fitness >= goal:
                run.close()
                return spent
        run.close()
    return None


def measure(name: str, num_envs: int, args: argparse.Namespace) -> Speed:
    """One line; without the device, one without figures."""
    try:
        env, share, lost = env_speed(name, num_envs, args.device, args.seconds)
        train = train_speed(name, num_envs, args.device, args.seconds)
        goal = None
        if args.goal is not None:
            goal = time_to(args.goal, name, num_envs, args.device, args.limit)
    except UserError as error:
        print(f"{name}, {num_envs} worlds: {error}", file=sys.stderr)
        return Speed(name, num_envs)
    return Speed(name, num_envs, env, share, train, lost, goal)


def table(speeds: Sequence[Speed], goal: float | None) -> str:
    """The lines as Markdown."""
    head = ["task", "worlds", "env steps/s", "physics", "train steps/s", "lost"]
    head += [] if goal is None else [f"s to fitness {goal:g}"]
    rows = [head, ["---"] * len(head)]
    for speed in speeds:
        row = [speed.task, f"{speed.num_envs:,}"]
        if speed.env_steps_per_s is None:
            row += ["not measured"] * (len(head) - 2)
        else:
            row += [f"{speed.env_steps_per_s:,.0f}", f"{speed.physics_share:.0%}", f"{speed.train_steps_per_s:,.0f}"]
            row += [str(speed.lost_worlds)]
            if goal is not None:
                row += ["missed" if speed.seconds_to_goal is None else f"{speed.seconds_to_goal:.0f}"]
        rows.append(row)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=registry.names(), metavar="TASK")
    parser.add_argument("--num-envs", type=int, nargs="+", default=list(WORLDS), help="numbers of worlds")
    parser.add_argument("--device", default="cuda", help="torch device")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--goal", type=float, default=None, help="fitness to train to")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds of training before giving up on --goal")
    parser.add_argument("--out", type=Path, default=None, help="JSON file of the figures")
    args = parser.parse_args(argv)
    has_gpu = torch.device(args.device).type == "cuda" and torch.cuda.is_available()
    where = torch.cuda.get_device_name(args.device) if has_gpu else args.device
    print(f"{where}; torch {torch.__version__}; human reward, preset of each task, {args.seconds:g} s each")
    speeds = [measure(name, count, args) for name in args.tasks for count in args.num_envs]
    print(table(speeds, args.goal))
    if args.out is not None:
        figures = {"device": where, "torch": torch.__version__, "lines": [asdict(speed) for speed in speeds]}
        args.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 1 if any(speed.env_steps_per_s is None for speed in speeds) else 0


if __name__ == "__main__":
    sys.exit(main())
