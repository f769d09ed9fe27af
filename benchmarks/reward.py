"""What the reward costs: the gate per candidate, a call by graph against the program run eagerly, its share of a step.

    python benchmarks/reward.py --task ant-run --worlds 512 4096 65536 --compile

gate:  milliseconds of `admit` for one candidate, warm (the child process runs already) and cold (it is started).
call:  microseconds of one call on one thread: the program itself, its graph, its graph compiled by inductor; the three
       in turn, --rounds times, medians, so that a busy machine disturbs all alike. A compilation has to pay for itself:
       its seconds are printed too.
share: the graph's calls in one PPO iteration over that iteration's time, at the task's preset and --num-envs worlds.

The programs are the task's human reward and the recorded replies of `examples/recorded/<task>`, where there are some.
They are run eagerly in this process here, for comparison; nothing else in the project does so.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("KMP_BLOCKTIME", "0")

import torch

from rewards.check import entry_arguments
from rewards.function import RewardFunction, build_reward, reward_graph
from rewards.gate import admit
from rewards.graph import read_graph
from rewards.library.library import load
from rewards.sandbox import close_child
from rewards.source import extract
from rewards.trace import load_program
from rl.config import config_for
from rl.record import TrainRequest
from rl.train import Training
from tasks import registry
from tasks.env import sample_signals
from tasks.signals import Signals, SignalTable

RECORDED = Path(__file__).parents[1] / "examples" / "recorded"
GATE_WORLDS = (64, 192)
"""As in a search."""
COMPILE_LIMIT_S = 300.0


def programs(task_name: str) -> list[str]:
    """The human reward first, then recorded programs."""
    replies = sorted((RECORDED / task_name / "replies").glob("*.md"))
    return [load(task_name, "human").text, *(extract(path.read_text(encoding="utf-8")).text for path in replies)]


def gate_ms(texts: Sequence[str], table: SignalTable, samples: Sequence[Signals]) -> tuple[float, list[float]]:
    """Milliseconds of the first candidate with a new child, and of each candidate with a warm one."""
    close_child()
    times = []
    for text in [texts[0], *texts]:
        began = time.perf_counter()
        admit(text, table, samples)
        times.append(1e3 * (time.perf_counter() - began))
    return times[0], times[1:]


def call_us(calls: dict[str, Callable[[], object]], rounds: int, seconds: float = 0.02) -> dict[str, float]:
    """Microseconds of this thread's processor time for each call: the calls in turn, `seconds` of each a round; the
    median round. Waiting for a busy machine does not count."""
    counts: dict[str, int] = {}
    for name, call in calls.items():
        for _ in range(3):
            call()
        began, count = time.thread_time(), 0
        while count < 3 or time.thread_time() - began < seconds:
            call()
            count += 1
        counts[name] = count
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.thread_time()
            for _ in range(counts[name]):
                call()
            times[name].append(1e6 * (time.thread_time() - began) / counts[name])
    return {name: statistics.median(values) for name, values in times.items()}


def states(samples: Signals, worlds: int) -> Signals:
    """Sampled states, repeated up to a number of worlds."""
    rows = torch.arange(worlds) % len(next(iter(samples.values())))
    return {name: tensor[rows].contiguous() for name, tensor in samples.items()}


def compare(text: str, table: SignalTable, batch: Signals, rounds: int, compile_too: bool) -> dict[str, float]:
    """Microseconds by "eager", "graph" and "compiled", and the seconds that compiling took."""
    program, names = load_program(text, table), entry_arguments(text)
    arguments = [batch[name] for name in names]
    graph = reward_graph(text, table)
    function = RewardFunction(read_graph(graph))

    def eager() -> object:
        with torch.no_grad():
            return program(*arguments)

    calls: dict[str, Callable[[], object]] = {"eager": eager, "graph": lambda: function(batch)}
    seconds = 0.0
    if compile_too:
        fast = RewardFunction(read_graph(graph), compile_limit_s=COMPILE_LIMIT_S)
        began = time.perf_counter()
        fast(batch)
        seconds = time.perf_counter() - began
        if fast.note:
            print(fast.note)
        else:
            calls["compiled"] = lambda: fast(batch)
    return {**call_us(calls, rounds), "compile_s": seconds}


def share_of_training(name: str, num_envs: int, iterations: int) -> float:
    """Time in the reward over time of whole PPO iterations, with the human reward."""
    task = registry.make(name)
    text = load(name, "human").text
    config = config_for(task, {"num_envs": num_envs})
    request = TrainRequest(run_id="reward", task=name, reward=text, config=config, seed=0, eval_seed=1, threads=0)
    inside = 0.0
    reward = build_reward(text, task.signal_table)

    class Timed(RewardFunction):
        """Adds up the seconds in calls."""

        def __call__(self, signals: Signals) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            nonlocal inside
            began = time.perf_counter()
            result = super().__call__(signals)
            inside += time.perf_counter() - began
            return result

    reward.__class__ = Timed
    with tempfile.TemporaryDirectory() as folder:
        run = Training(request, task, reward, Path(folder))
        run.run_iteration()
        inside, began = 0.0, time.perf_counter()
        for _ in range(iterations):
            run.run_iteration()
        whole = time.perf_counter() - began
        run.close()
    return inside / whole


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--task", default="ant-run", choices=registry.names())
    parser.add_argument("--worlds", type=int, nargs="+", default=[512, 4096, 65_536])
    parser.add_argument("--programs", type=int, default=4, help="how many programs are called (the gate takes all)")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--compile", action="store_true", help="compile with inductor too")
    parser.add_argument("--num-envs", type=int, default=1024, help="worlds of the training")
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = registry.make(options.task)
    table, texts = task.signal_table, programs(options.task)
    samples = [sample_signals(task, worlds, seed=worlds) for worlds in GATE_WORLDS]
    cold, warm = gate_ms(texts, table, samples)
    print(f"gate: cold {cold:.0f} ms; warm median {statistics.median(warm):.0f} ms, {min(warm):.0f} to {max(warm):.0f}")
    for worlds in options.worlds:
        batch = states(samples[-1], worlds)
        rows = [compare(text, table, batch, options.rounds, options.compile) for text in texts[: options.programs]]
        for row in rows:
            compiled = f", compiled {row['compiled']:.0f} us" if "compiled" in row else ""
            print(f"  {worlds} worlds: eager {row['eager']:.0f} us, graph {row['graph']:.0f} us{compiled}")
        ratio = statistics.median(row["graph"] / row["eager"] for row in rows)
        line = f"call at {worlds} worlds: graph / eager {ratio:.2f}"
        fast = [row for row in rows if "compiled" in row]
        if fast:
            ratio = statistics.median(row["compiled"] / row["eager"] for row in fast)
            took = statistics.median(row["compile_s"] for row in fast)
            line += f", compiled / eager {ratio:.2f} (compiled in {took:.1f} s)"
        print(line)
    share = share_of_training(options.task, options.num_envs, 2)
    print(f"share of a training iteration at {options.num_envs} worlds: {100 * share:.2f} %")


if __name__ == "__main__":
    main()
