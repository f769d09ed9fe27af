"""A long search without a network and without training: does anything grow with its history?

    python benchmarks/soak.py --candidates 10000 --gate-every 10

A designer that draws programs at random and an executor that writes `result.json` itself; the search, its archive,
its files, its report and the gate with its confined child are the real ones. The gate judges one generation in
--gate-every; in the others the verdict of an equal program is taken again, so that 10,000 candidates take minutes.

Every generation its seconds of processor time per candidate, the resident memory, open descriptors, threads and zombies
are noted. Flat means: a straight line through the second half of the run rises by less than `LIMITS` over that half,
compared with its mean. Exit code 1 otherwise. Axes: K candidates of a generation.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from eureka import search
from eureka.candidate import Candidate
from eureka.designers.base import Ask, Reply
from eureka.executors.base import Ended, Job
from eureka.listener import Listener
from eureka.proposing import Gate
from eureka.search_config import SearchConfig, start_folder
from rewards.gate import Verdict
from rl.record import RESULT, make_result, read_request, write_json_atomic

LIMITS = {"seconds": 0.25, "memory_mb": 0.10, "descriptors": 0.02, "threads": 0.02, "zombies": 0.0}
"""Most that a line through the second half may rise, as a share of the half's mean."""
KEPT_PROGRAMS = 24


def program(seed: int, table: Sequence[str]) -> str:
    """A reply with a small reward over some signals."""
    rng = random.Random(seed)
    names = rng.sample(list(table), min(3, len(table)))
    terms = [
        f"    t{i} = {rng.uniform(0.1, 2.0):.4f} * torch.tanh({name}).mean(dim=-1)" for i, name in enumerate(names)
    ]
    total = " + ".join(f"t{i}" for i in range(len(names)))
    parts = ", ".join(f'"t{i}": t{i}' for i in range(len(names)))
    lines = ["import torch", "", f"def compute_reward({', '.join(names)}):", *terms, f"    return {total}, {{{parts}}}"]
    return "```python\n" + "\n".join(lines) + "\n```"


class RandomDesigner:
    """Draws from a pool of programs; one in ten is broken."""

    name = "soak"

    def __init__(self) -> None:
        self._count = 0

    def check(self) -> None:
        """Nothing to check."""

    def answer(self, asks: Sequence[Ask], on_reply: Callable[[Reply], None]) -> None:
        """A reply for each ask."""
        for ask in asks:
            self._count += 1
            text = program(self._count % KEPT_PROGRAMS, ask.context.signal_table.names)
            text = text.replace("torch.tanh", "torch.tanhh") if self._count % 10 == 0 else text
            on_reply(Reply(ask.ask_id, text, "ok"))


class InstantExecutor:
    """Writes the result of a training that never ran."""

    slots, threads_per_slot = 1, 1

    def __init__(self) -> None:
        self._ended: list[Ended] = []

    def submit(self, job: Job) -> None:
        """The job has ended at once."""
        request = read_request(job.run_dir)
        result = make_result(request, "ok") | {
            "fitness": random.Random(job.run_id).gauss(1.0, 0.3),
            "fitness_std": 0.1,
        }
        write_json_atomic(job.run_dir / RESULT, result)
        self._ended.append(Ended(job.run_id, "finished", 0, ""))

    def wait(self, timeout_s: float) -> list[Ended]:
        """All of them."""
        ended, self._ended = self._ended, []
        return ended

    def running(self) -> tuple[str, ...]:
        """None."""
        return ()

    def cancel_all(self) -> None:
        """Nothing to end."""


@dataclasses.dataclass(frozen=True)
class SparingGate(Gate):
    """The real gate in one generation of `every`, and for programs that it has not seen; else its earlier verdict."""

    every: int = 1
    known: dict[str, Verdict] = dataclasses.field(default_factory=dict)
    rounds: list[int] = dataclasses.field(default_factory=list)

    def judge(self, replies: dict[str, Reply]) -> dict[str, Verdict]:
        """See the class."""
        self.rounds.append(len(replies))
        fresh = {
            name: reply
            for name, reply in replies.items()
            if len(self.rounds) % self.every == 0 or reply.text not in self.known
        }
        judged = super().judge(fresh) if fresh else {}
        self.known.update({reply.text or "": judged[name] for name, reply in fresh.items()})
        return {
            name: renamed(judged.get(name) or self.known[reply.text or ""], name) for name, reply in replies.items()
        }


def renamed(verdict: Verdict, name: str) -> Verdict:
    """The verdict with a component of another name in its graph: equal graphs would train once."""
    if verdict.graph is None:
        return verdict
    (_, first), *others = verdict.graph["components"]
    return dataclasses.replace(verdict, graph={**verdict.graph, "components": [[f"t0_{name}", first], *others]})


def resources() -> dict[str, float]:
    """Of this process and its children."""
    status = Path("/proc/self/status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]
    children = [
        Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        for task in Path("/proc/self/task").iterdir()
        for pid in (task / "children").read_text().split()
    ]
    return {
        "memory_mb": int(resident) / 1024,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "zombies": children.count("Z"),
    }


class Measuring(Listener):
    """Notes time and resources at the end of every generation."""

    def __init__(self, samples: int) -> None:
        self.rows: list[dict[str, float]] = []
        self._samples, self._last = samples, time.process_time()

    def generation_ended(self, generation: int, best: Candidate | None, improved: bool) -> None:
        """One row."""
        now = time.process_time()
        self.rows.append({"seconds": (now - self._last) / self._samples, **resources()})
        self._last = now


def soak(folder: Path, candidates: int, samples: int, every: int, task: str) -> list[dict[str, float]]:
    """Run it; a row for each generation."""
    config = SearchConfig(
        task,
        samples=samples,
        generations=candidates // samples,
        repairs=0,
        halving="off",  # every candidate trains once, to the end
        final_seeds=0,
        video=False,
    )
    folder = start_folder(config, folder)
    listener = Measuring(samples)
    search.Gate = lambda *args: SparingGate(*args, every=every)  # type: ignore[assignment, misc]
    try:
        search.run_search(folder, config, RandomDesigner(), InstantExecutor(), listener)
    except search.UserError as error:  # there is no policy to keep at the end
        if len(listener.rows) < config.generations:
            raise
        print(f"(the end: {error})")
    finally:
        search.Gate = Gate  # type: ignore[misc]
    return listener.rows


def rise(values: Sequence[float]) -> float:
    """Rise of the straight line through the second half, over that half, as a share of its mean."""
    half = list(values)[len(values) // 2 :]
    if len(half) < 2 or not any(half):
        return 0.0
    slope = statistics.linear_regression(range(len(half)), half).slope
    return slope * (len(half) - 1) / statistics.mean(half)


def grown(rows: Sequence[dict[str, float]], limits: dict[str, float] = LIMITS) -> list[str]:
    """What is not flat, in words."""
    found = []
    for name, limit in limits.items():
        risen = rise([row[name] for row in rows])
        if risen > limit:
            found.append(f"{name} rises by {100 * risen:.0f} % over the second half, at most {100 * limit:.0f} %")
    return found


def quarters(rows: Sequence[dict[str, float]]) -> list[str]:
    """Means over the quarters of a run, a line each. A single generation says little of time: a page is written in one
    of several."""
    lines = []
    for place in range(4):
        part = rows[place * len(rows) // 4 : (place + 1) * len(rows) // 4]
        means = {name: statistics.mean(row[name] for row in part) for name in rows[0]}
        lines.append(f"quarter {place + 1}: " + ", ".join(f"{name} {value:.4g}" for name, value in means.items()))
    return lines


def main() -> int:
    """Soak and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--candidates", type=int, default=10_000)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--gate-every", type=int, default=10)
    parser.add_argument("--task", default="ant-run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = soak(Path(folder) / "run", options.candidates, options.samples, options.gate_every, options.task)
    tenths = [rows[min(len(rows) - 1, place * len(rows) // 10)] for place in range(11)]
    for place, row in enumerate(tenths):
        figures = ", ".join(f"{name} {value:.4g}" for name, value in row.items())
        print(f"after {place * 10:3d} %: {figures}")
    print("\n".join(quarters(rows)))
    found = grown(rows)
    print("\n".join(found) or "flat")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
