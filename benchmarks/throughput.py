"""Steps per second of every task: raw MuJoCo batch, our environment, our training; one run, one table.

    python benchmarks/throughput.py --tasks ant-run humanoid-run --num-envs 512 --threads 2

The unit is the control step of one world (a task's control step is several physics steps; `raw` takes as
many). raw:   `mujoco.batch.Batch.step` on the same model, threads and kind of controls, nothing else.
env:   `TaskEnv.step` with random actions: physics, signals, terminations, resets, observations.
train: whole PPO iterations with the human reward and the task's preset at --num-envs worlds.
The three are measured in turn, --rounds times, and medians are printed, so that a busy machine disturbs all
alike. The last lines are the peak memory of a training with 1024 ant worlds, in a process of its own, and
with --sb3 the speed of Stable-Baselines3's PPO on Gymnasium's Ant-v5 (see sb3_ant.py).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

# As the command line and the workers do: spinning OpenMP threads would take the cores from the physics.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("KMP_BLOCKTIME", "0")

import torch
from mujoco.batch import Batch

from rewards.function import build_reward
from rewards.library.library import load
from rl.config import config_for
from rl.record import TrainRequest
from rl.train import Training, available_threads
from tasks import registry
from tasks.env import make_env
from tasks.task import Task

ACTION_BANK = 32
"""Different random action tensors, drawn before the clock starts."""
RESTART_EVERY = 100
"""Raw worlds go back to their first state after so many control steps: otherwise they would all lie on the
floor."""
MEMORY_WORLDS = 1024


def timed(step: Callable[[], int], seconds: float) -> float:
    """Call `step` (it returns how many control steps it did) for about `seconds`; control steps per
    second."""
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        count += step()
    return count / (time.perf_counter() - began)


def raw_stepper(task: Task, num_envs: int, threads: int) -> Callable[[], int]:
    """Physics alone, from the states that episodes start in."""
    env = make_env(task, num_envs, num_threads=threads)
    qpos, qvel = env.sim.qpos.double().numpy(), env.sim.qvel.double().numpy()
    env.close()
    model = task.build_model()
    batch = Batch(model, num_envs, threads)
    state_q, state_v, ctrl = batch.bind("qpos"), batch.bind("qvel"), batch.bind("ctrl")
    low, high = model.actuator_ctrlrange.T
    bank = [(low + (high - low) * torch.rand(num_envs, model.nu).double().numpy()) for _ in range(ACTION_BANK)]
    substeps, calls = task.substeps(model), 0

    def step() -> int:
        nonlocal calls
        if calls % RESTART_EVERY == 0:
            batch.reset(stage=0)
            state_q[:], state_v[:] = qpos, qvel
        ctrl[:] = bank[calls % ACTION_BANK]
        batch.step(nstep=substeps)
        calls += 1
        return num_envs

    return step


def env_stepper(task: Task, num_envs: int, threads: int) -> Callable[[], int]:
    """Our environment under random actions."""
    env = make_env(task, num_envs, num_threads=threads)
    bank = [torch.rand(num_envs, env.num_actions) * 2 - 1 for _ in range(ACTION_BANK)]
    calls = 0

    def step() -> int:
        nonlocal calls
        with torch.inference_mode():
            env.step(bank[calls % ACTION_BANK])
        calls += 1
        return num_envs

    return step


def training(task: Task, num_envs: int, threads: int, folder: str) -> Training:
    """The task's preset with the human reward, at `num_envs` worlds."""
    source = load(task.name, "human")
    config = config_for(task, {"num_envs": num_envs})
    torch.set_float32_matmul_precision(config.matmul_precision)
    request = TrainRequest(
        run_id="throughput",
        task=task.name,
        reward=source.text,
        config=config,
        seed=0,
        eval_seed=1,
        threads=threads,
    )
    return Training(request, task, build_reward(source.text, task.signal_table), Path(folder))


def train_stepper(run: Training) -> Callable[[], int]:
    """Whole PPO iterations."""

    def step() -> int:
        before = run.env_steps
        run.run_iteration()
        return run.env_steps - before

    return step


def measure(name: str, num_envs: int, threads: int, seconds: float, rounds: int) -> dict[str, float]:
    """Median control steps per second of raw, env and train."""
    task = registry.make(name)
    torch.set_num_threads(1)  # as a training does: physics and updates bring their own threads
    with tempfile.TemporaryDirectory() as folder:
        run = training(task, num_envs, threads, folder)
        steppers = {
            "raw": raw_stepper(task, num_envs, threads),
            "env": env_stepper(task, num_envs, threads),
            "train": train_stepper(run),
        }
        for step in steppers.values():
            step()  # first calls allocate
        rates: dict[str, list[float]] = {kind: [] for kind in steppers}
        for _ in range(rounds):
            for kind, step in steppers.items():
                rates[kind].append(timed(step, seconds))
        run.close()
    return {kind: statistics.median(values) for kind, values in rates.items()}


def _memory_child(threads: int, answer) -> None:
    imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        run = training(registry.make("ant-run"), MEMORY_WORLDS, threads, folder)
        for _ in range(3):
            run.run_iteration()
        run.close()
    answer.put((imported, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))


def peak_memory_mb(threads: int) -> tuple[float, float]:
    """Peak resident memory, MB, of a fresh process: with everything imported, and after training 1024
    ants."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    child = context.Process(target=_memory_child, args=(threads, answer))
    child.start()
    imported, trained = answer.get(timeout=300)
    child.join()
    unit = 1024**2 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB on Linux
    return imported / unit, trained / unit


def sb3_rate(python: str, seconds: float, threads: int) -> float | None:
    """Environment steps per second of Stable-Baselines3 on Ant-v5, or None with a line on stderr."""
    script = Path(__file__).with_name("sb3_ant.py")
    command = [python, str(script), "--seconds", str(seconds), "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"sb3: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    return float(json.loads(done.stdout.strip().splitlines()[-1])["steps_per_s"])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(registry.names()), help="task names (default: all)")
    parser.add_argument("--num-envs", type=int, default=512, help="worlds")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0: all that this process may use")
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds of each measurement")
    parser.add_argument("--rounds", type=int, default=5, help="measurements behind each median")
    parser.add_argument("--sb3", action="store_true", help="also measure Stable-Baselines3 on Ant-v5")
    parser.add_argument("--sb3-python", default=sys.executable, help="interpreter that has stable-baselines3")
    parser.add_argument("--no-memory", action="store_true", help="skip the memory measurement")
    args = parser.parse_args()
    threads = args.threads or available_threads()

    print(f"control steps per second; {args.num_envs} worlds, {threads} threads of {os.cpu_count()} cores")
    print(f"{'task':18}{'raw':>10}{'env':>10}{'train':>10}{'env/raw':>9}{'train/env':>11}")
    rates: dict[str, dict[str, float]] = {}
    for name in args.tasks:
        rate = rates[name] = measure(name, args.num_envs, threads, args.seconds, args.rounds)
        print(
            f"{name:18}{rate['raw']:10,.0f}{rate['env']:10,.0f}{rate['train']:10,.0f}"
            f"{rate['env'] / rate['raw']:9.2f}{rate['train'] / rate['env']:11.2f}",
            flush=True,
        )
    if not args.no_memory:
        imported, trained = peak_memory_mb(threads)
        print(f"peak memory, training {MEMORY_WORLDS} ant worlds: {trained:,.0f} MB ({imported:,.0f} MB after imports)")
    if args.sb3:
        rate_sb3 = sb3_rate(args.sb3_python, max(20.0, args.seconds * args.rounds), threads)
        if rate_sb3 is not None:
            ratio = f", ours is {rates['ant-run']['train'] / rate_sb3:.1f} x" if "ant-run" in rates else ""
            print(f"Stable-Baselines3 PPO, Ant-v5: {rate_sb3:,.0f} steps/s{ratio}")


if __name__ == "__main__":
    main()
