"""Successive halving against full budgets: the same recorded candidates, searched twice, in one run.

    python benchmarks/halving.py [--task ant-run] [--recording examples/recorded/ant-run] [--generations 1] [--out DIR]

Prints, and writes to OUT/halving.json, for both searches the control steps their candidates cost and the candidate
they end with; the ratio of the steps; and whether the choices agree: the same candidate, or final fitness (fresh seeds,
trained in full) that differs by no more than one standard error of the difference. OUT is resumed where it exists.

What it does not know: how long either takes. Steps are counted, since a busy machine tells nothing by its clock.
"""

from __future__ import annotations

import argparse
import math
import statistics
from pathlib import Path
from typing import Any

from eureka import finals
from eureka.archive import Archive
from eureka.designers.base import DesignerConfig
from eureka.designers.create import create
from eureka.designers.replay import recorded_settings
from eureka.executors.local import LocalExecutor
from eureka.halving import spent
from eureka.listener import Listener
from eureka.search import run_search
from eureka.search_config import CONFIG_FILE, SearchConfig, load_config, start_folder
from rl.record import write_json_atomic


class _Printing(Listener):
    def say(self, text: str) -> None:
        """A line for people."""
        print(text, flush=True)


def search(folder: Path, config: SearchConfig, slots: int) -> dict[str, Any]:
    """Run or resume one search, and what it cost and found."""
    if not (folder / CONFIG_FILE).exists():
        start_folder(config, folder)
    config = load_config(folder)
    designer = create(config.designer, search_dir=folder, task_name=config.task)
    designer.check()
    result = run_search(folder, config, designer, LocalExecutor(slots, config.threads), _Printing())
    archive = Archive(folder / "search.db", create=False, read_only=True)
    runs = [run for role in ("candidate", "rung") for run in archive.runs(role)]
    found = {
        "halving": config.halves,
        "best": result.best.candidate_id if result.best else None,
        "fitness": result.best.fitness if result.best else None,
        "final": finals.fitness_per_seed(archive, "final"),
        "env_steps": int(spent((run.candidate_id or "", run.seed, run.result.get("env_steps", 0)) for run in runs)),
        "candidates": {c.candidate_id: [str(c.status), c.fitness, c.rung_fitness] for c in archive.candidates()},
    }
    archive.close()
    return found


def compare(full: dict[str, Any], halved: dict[str, Any]) -> dict[str, Any]:
    """Ratio of the steps, and whether the choices agree."""
    told: dict[str, Any] = {"env_steps_ratio": halved["env_steps"] / full["env_steps"]}
    told["same_choice"] = full["best"] == halved["best"]
    first, second = full["final"], halved["final"]
    if len(first) > 1 and len(second) > 1:
        error = math.sqrt(statistics.variance(first) / len(first) + statistics.variance(second) / len(second))
        difference = statistics.fmean(second) - statistics.fmean(first)
        told |= {"final_difference": difference, "standard_error": error}
        told["within_one_standard_error"] = told["same_choice"] or abs(difference) <= error
    return told


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="ant-run")
    parser.add_argument("--recording", type=Path, default=Path("examples/recorded/ant-run"))
    parser.add_argument("--samples", type=int, help="of each generation; as recorded when not given")
    parser.add_argument("--generations", type=int, default=1, help="later ones were written for other parents")
    parser.add_argument("--iterations", type=int, help="as recorded when not given")
    parser.add_argument("--num-envs", type=int, help="as recorded when not given")
    parser.add_argument("--final-seeds", type=int, default=3)
    parser.add_argument("--slots", type=int, default=1, help="trainings at a time")
    parser.add_argument("--out", type=Path, default=Path("runs/halving-benchmark"))
    told = parser.parse_args()
    settings = {**recorded_settings(told.recording), "task": told.task, "generations": told.generations}
    settings |= {"final_seeds": told.final_seeds, "confirm": 0}
    if told.samples is not None:
        settings["samples"] = told.samples
    changed = {"iterations": told.iterations, "num_envs": told.num_envs}
    settings["train"] = {**settings.get("train", {}), **{k: v for k, v in changed.items() if v is not None}}
    found = {}
    for mode in ("off", "on"):
        designer = DesignerConfig(designer="replay", replay_from=told.recording)
        config = SearchConfig(**{**settings, "halving": mode, "video": False, "designer": designer})
        found[mode] = search(told.out / mode, config, told.slots)
    verdict = {"settings": settings, "full": found["off"], "halved": found["on"], **compare(found["off"], found["on"])}
    write_json_atomic(told.out / "halving.json", verdict)
    for mode in ("full", "halved"):
        part = verdict[mode]
        print(f"{mode:<7} {part['env_steps']:>12,} steps, best {part['best']}, finals {part['final']}")
    for name in ("env_steps_ratio", "same_choice", "final_difference", "standard_error", "within_one_standard_error"):
        if name in verdict:
            print(f"{name}: {verdict[name]}")


if __name__ == "__main__":
    main()
