"""K candidates in one simulation against K trainings: wall and processor time, and whether they learn the same.

    python benchmarks/population.py [--task cartpole-swingup] [--candidates 8] [--seeds 0 1 2] [--out DIR]
    python benchmarks/population.py --task ant-run --candidates 16 --backend warp --device cuda \\
        --ways sequential population

The candidates are the human reward and programs that the evolution designer composes. Each way runs the workers that a
search would start: `sequential`, one process after the other; `parallel`, all at once; `population`, one process with
one simulation. Seeds after the first run without `parallel`; the curves of the other two are compared: the means over
all iterations of the training episodes' fitness ("area") and reward, and the held-out fitness at the end. A candidate's
difference over the seeds stands beside its standard error, that of two independent means (z = difference / error); of K
candidates that learn the same about 2 K / 3 have |z| < 1. OUT/population.json holds everything; what is in OUT is not
run again.

Processor time is that of the workers with all their processes. On a machine that does other work compare that, not
the clock. On a CPU both ways are bound by arithmetic; on a GPU, small networks by launches.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eureka.designers.base import Ask, DesignContext
from eureka.designers.evolution import compose
from rewards.function import reward_graph
from rewards.library.library import load
from rewards.source import extract
from rl.config import config_for
from rl.population_worker import write_population
from rl.record import METRICS, RESULT, TrainRequest, read_json, read_metrics, write_json_atomic, write_request
from tasks import registry
from tasks.env import sample_signals
from tasks.task import Task

EVAL_SEED = 1_000_003
WAYS = ("sequential", "parallel", "population")
CURVES = {"area": "fitness", "reward": "reward_mean"}
"""Figure -> the field of the metrics whose mean over the iterations it is."""
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Cost:
    """What running some workers took."""

    wall_s: float
    processor_s: float
    """User and system time of the workers and what they started."""


Launch = Callable[[Sequence[Path], bool], Cost]


def programs(task: Task, name: str, count: int) -> list[tuple[str, dict[str, Any]]]:
    """(text, graph) of the human reward and of count - 1 composed ones."""
    scales = {key: value.std(dim=0).tolist() for key, value in sample_signals(task, 64, num_threads=1).items()}
    texts = [load(name, "human").text]
    for index in range(1, count):
        context = DesignContext(
            task_name=name,
            instruction=task.instruction,
            signal_table=task.signal_table,
            signal_scales=scales,
            index=index,
            samples=count,
        )
        texts.append(extract(compose(Ask(f"g01_c{index:02d}_r0", f"g01_c{index:02d}", 0, (), context))).text)
    return [(text, reward_graph(text, task.signal_table)) for text in texts]


def launch(folders: Sequence[Path], together: bool) -> Cost:
    """Run a worker for each folder, one after the other or all at once. Raises RuntimeError if one has no result."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}
    began, spent = time.perf_counter(), 0.0
    groups = [folders] if together else [[folder] for folder in folders]
    for group in groups:
        started = []
        for folder in group:
            with (folder / "worker.log").open("wb") as log:
                words = [sys.executable, "-P", "-m", "rl.worker", str(folder)]
                started.append(subprocess.Popen(words, env=environment, cwd=folder, stdout=log, stderr=log))
        for process, folder in zip(started, group, strict=True):
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode not in (0, 1):
                raise RuntimeError(f"{folder}: worker ended with {process.returncode}; see worker.log there")
            spent += usage.ru_utime + usage.ru_stime
    return Cost(time.perf_counter() - began, spent)


def run(way: str, seed: int, requests: Sequence[TrainRequest], out: Path, start: Launch) -> dict[str, Any]:
    """One way and seed: cost, and what each candidate came to. Taken from OUT where it is there already."""
    place = out / f"{way}_s{seed}"
    told = place / "told.json"
    if told.exists():
        return read_json(told)
    run_dirs = [place / str(request.candidate_id) for request in requests]
    for request, run_dir in zip(requests, run_dirs, strict=True):
        write_request(request, run_dir)
    folders = run_dirs
    if way == "population":
        write_population(place / "job", run_dirs)
        folders = [place / "job"]
    cost = start(folders, way == "parallel")
    rows = []
    for run_dir in run_dirs:
        result = read_json(run_dir / RESULT)
        row = {"status": result["status"], "fitness": result["fitness"]}
        for figure, field in CURVES.items():
            curve = [line[field] for line in read_metrics(run_dir / METRICS) if line[field] is not None]
            row |= {f"{figure}_curve": curve, figure: statistics.fmean(curve) if curve else None}
        rows.append(row)
    data = {"wall_s": cost.wall_s, "processor_s": cost.processor_s, "candidates": rows}
    write_json_atomic(told, data)
    return data


def compare(alone: Sequence[dict[str, Any]], together: Sequence[dict[str, Any]], figure: str) -> dict[str, Any]:
    """A figure of one candidate over the seeds, trained alone and in a population."""
    first, second = ([row[figure] for row in rows if row[figure] is not None] for rows in (alone, together))
    if len(first) < 2 or len(second) < 2:
        return {"alone": first, "population": second, "difference": None, "error": None, "z": None}
    difference = statistics.fmean(second) - statistics.fmean(first)
    error = math.sqrt(statistics.variance(first) / len(first) + statistics.variance(second) / len(second))
    z = difference / error if error > 0.0 else 0.0 if difference == 0.0 else math.inf
    return {"alone": first, "population": second, "difference": difference, "error": error, "z": z}


def measure(options: argparse.Namespace, start: Launch = launch) -> dict[str, Any]:
    """Run everything that is wanted and not there yet; all figures."""
    task = registry.make(options.task)
    changed = {"iterations": options.iterations, "num_envs": options.num_envs}
    config = config_for(task, {key: value for key, value in changed.items() if value is not None})
    rewards = programs(task, options.task, options.candidates)
    found: dict[str, dict[int, Any]] = {way: {} for way in options.ways}
    for number, seed in enumerate(options.seeds):
        requests = [
            TrainRequest(
                run_id=f"c{k:02d}_s{seed}",
                candidate_id=f"c{k:02d}",
                task=options.task,
                reward=text,
                reward_graph=graph,
                config=config,
                seed=seed,
                eval_seed=EVAL_SEED,
                threads=options.threads,
                backend=options.backend,
                device=options.device,
            )
            for k, (text, graph) in enumerate(rewards)
        ]
        for way in options.ways:
            if number == 0 or way != "parallel":
                found[way][seed] = run(way, seed, requests, options.out, start)
                print(_line(way, seed, found[way][seed], options.candidates), flush=True)
    figures: dict[str, Any] = {"options": {k: str(v) for k, v in vars(options).items()}, "ways": found}
    if {"sequential", "population"} <= set(found):
        figures["compared"] = [
            {
                figure: compare(
                    *(
                        [found[way][seed]["candidates"][k] for seed in options.seeds]
                        for way in ("sequential", "population")
                    ),
                    figure,
                )
                for figure in (*CURVES, "fitness")
            }
            for k in range(options.candidates)
        ]
    return figures


def _line(way: str, seed: int, data: dict[str, Any], count: int) -> str:
    statuses = sorted({row["status"] for row in data["candidates"]})
    return (
        f"seed {seed} {way:<11} {data['wall_s']:8.1f} s, processor {data['processor_s']:8.1f} s "
        f"({data['processor_s'] / count:6.1f} a candidate), {3600 * count / data['wall_s']:7.1f} candidates/h; "
        f"{', '.join(statuses)}"
    )


def report(figures: dict[str, Any]) -> None:
    """Print the comparisons."""
    for k, row in enumerate(figures.get("compared", [])):
        parts = []
        for figure, told in row.items():
            means = [f"{statistics.fmean(told[way]):.4g}" if told[way] else "none" for way in ("alone", "population")]
            z = "" if told["z"] is None else f" (z {told['z']:+.2f})"
            parts.append(f"{figure} alone {means[0]}, population {means[1]}{z}")
        print(f"candidate {k:2d}: {'; '.join(parts)}")
    for figure in (*CURVES, "fitness"):
        known = [row[figure]["z"] for row in figures.get("compared", []) if row[figure]["z"] is not None]
        if known:
            low = sum(abs(z) < 1 for z in known)
            print(f"{figure}: {low} of {len(known)} with |z| < 1, largest {max(map(abs, known)):.2f}")


def main(arguments: Sequence[str] | None = None, start: Launch = launch) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="cartpole-swingup")
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, help="of each training; the preset's when not given")
    parser.add_argument("--num-envs", type=int, help="of each training; the preset's when not given")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each worker, 0: all")
    parser.add_argument("--backend", default="native")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--out", type=Path, default=Path("runs/population-benchmark"))
    options = parser.parse_args(arguments)
    options.out = options.out.resolve()
    figures = measure(options, start)
    report(figures)
    options.out.mkdir(parents=True, exist_ok=True)
    write_json_atomic(options.out / "population.json", json.loads(json.dumps(figures)))


if __name__ == "__main__":
    main()
