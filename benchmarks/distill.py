"""What distillation keeps of experts: cloning alone against DAgger, and against the experts, on held-out seeds.

    python benchmarks/distill.py RUN RUN ... --out runs/distill/bench --steps 6000
    python benchmarks/distill.py RUN RUN ... --out runs/distill/bench --minutes 60 --objectives flow regression

For each objective two students are made of the same experts, with the same optimiser steps: one by cloning alone
(no rounds), one with --rounds of DAgger. So that cloning has no less data, its experts play as many episodes as experts
and student together play for the other. With --minutes the steps are
those that fit into the time with DAgger. Both are measured on the same held-out episodes; "kept" is (student - zero
actions) / |expert - zero actions|. A distillation that is in --out already is gone on with, or read.

Printed also: seconds, processor seconds of this process, samples a second, and for command tasks the share of stretches
in which the body did what it was told, in the words of training and in held-out ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from distill.evaluate import EXPERT, HELD_OUT, IDLE, STUDENT, Measure, SkillReport, evaluate_skill
from distill.pace import PACE
from distill.train import RESULT, distill
from distill.train_config import distill_config
from distill.train_request import REQUEST, DistillRequest, expert_files, read_request, write_request
from eureka.commands.distill import find_expert
from eureka.commands.places import parse_settings
from rl.record import read_json, write_json_atomic


def make(folder: Path, experts: list, settings: dict, preset: str, minutes: float) -> dict:
    """Carry a distillation out; what it took."""
    if not (folder / REQUEST).exists():
        config = distill_config(preset, settings)
        write_request(DistillRequest(expert_files(experts), config, minutes), folder)
    began, processor = time.monotonic(), time.process_time()
    distill(folder)
    result, config = read_json(folder / RESULT), read_request(folder).config
    return {
        "steps": result["steps"],
        "samples": result["steps"] * config.batch_size,
        "wall_s": result["wall_s"],
        "this_start_s": time.monotonic() - began,
        "this_start_processor_s": time.process_time() - processor,
    }


def measured(folder: Path, measure: Measure) -> list[SkillReport]:
    """All skills of a student beside their experts."""
    from distill.generalist import load_generalist

    generalist = load_generalist(folder)
    experts = {expert.task.name: expert.policy for expert in (one.load() for one in read_request(folder).experts)}
    return [evaluate_skill(generalist, skill.task, experts[skill.task], measure) for skill in generalist.skills]


def shown(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def row(way: str, report: SkillReport) -> list[str]:
    """One student in one task."""
    told = [report.runs[who].obeyed for who in (STUDENT, HELD_OUT) if who in report.runs]
    shares = [None if one is None else one.share for one in told]
    kept = report.kept
    return [
        report.task,
        way,
        *(f"{report.runs[who].fitness.value:.4g}" for who in (IDLE, EXPERT, STUDENT)),
        shown(kept.value if kept else None),
        f"{kept.low:.3f} to {kept.high:.3f}" if kept else "-",
        *(shown(share, 2) for share in (*shares, None, None)[:2]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experts", nargs="+", help="folder of a run or a search, a checkpoint, or TASK=policy.onnx")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--objectives", nargs="+", default=["flow"])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--episodes", type=int, default=64, help="held-out episodes of each player")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], help="settings of eureka distill, as batch_size=512")
    args = parser.parse_args()
    experts = [find_expert(text) for text in args.experts]
    measure = Measure(episodes=args.episodes, num_threads=args.threads)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("task", "student", "nothing", "expert", "fitness", "kept", "95 %", "obeyed", "obeyed, held out"):
        table.add_column(title, justify="left" if title in ("task", "student") else "right")
    reports: dict[str, list[SkillReport]] = {}
    costs: dict[str, dict] = {}
    for objective in args.objectives:
        settings = parse_settings(args.set)
        settings |= {"head": {**settings.get("head", {}), "objective": objective}, "threads": args.threads}
        way = f"{objective}, DAgger"
        dagger = args.out / f"{objective}_dagger"
        plan = {**settings, "rounds": args.rounds, "steps": args.steps}
        costs[way] = make(dagger, experts, plan, args.preset, args.minutes)
        reports[way] = measured(dagger, measure)
        config = read_request(dagger).config
        steps = read_json(dagger / PACE)["steps"] if args.minutes else args.steps
        alone = {**settings, "rounds": 0, "steps": steps,
                 "episodes": config.episodes + args.rounds * config.round_episodes}  # fmt: skip
        way = f"{objective}, cloning"
        costs[way] = make(args.out / f"{objective}_cloning", experts, alone, args.preset, 0.0)
        reports[way] = measured(args.out / f"{objective}_cloning", measure)
    for number in range(len(experts)):
        for way, found in reports.items():
            table.add_row(*row(way, found[number]))
    console = Console(highlight=False, width=160)
    console.print(table)
    for way, cost in costs.items():
        rate = cost["samples"] / cost["wall_s"]
        console.print(
            f"{way}: {cost['steps']} steps, {cost['samples']:,} samples in {cost['wall_s'] / 60:.1f} min, playing "
            f"included ({rate:.0f} samples/s); {cost['this_start_processor_s']:.0f} s of processor time in this start"
        )
    data = {way: [dataclasses.asdict(report) for report in found] for way, found in reports.items()}
    write_json_atomic(args.out / "table.json", {"costs": costs, "reports": data})
    print(json.dumps({way: cost["steps"] for way, cost in costs.items()}))


if __name__ == "__main__":
    main()
