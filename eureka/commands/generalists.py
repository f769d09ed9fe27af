"""`eureka evaluate`, `play` and `export` of a generalist: their further options, and what is printed."""

from __future__ import annotations

import dataclasses
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table

from distill.checkpoint import META, WEIGHTS
from distill.evaluate import (
    EXPERT,
    HELD_OUT,
    IDLE,
    STUDENT,
    Estimate,
    Measure,
    Price,
    SkillReport,
    evaluate_skill,
    prices,
)
from distill.experts import Expert, load_checkpoint_expert, load_onnx_expert
from distill.export import export_head
from distill.generalist import Generalist, is_generalist, load_generalist
from distill.told import FELL, Obeyed, told_words
from eureka.commands.places import find_checkpoint
from eureka.commands.printing import table_console
from eureka.generalist_page import EVALUATION, write_page
from rl.acting import Player
from rl.grid import Cell, record_grid
from rl.record import write_atomic, write_json_atomic
from rl.video import record_video
from tasks.env import TaskEnv
from tasks.errors import UserError
from tasks.task import Task

EXECUTES, EULER_STEPS = (1, 2, 4, 8, 16), (1, 2, 4)
"""What `--prices` tries."""

Names = tyro.conf.UseAppendAction[tuple[str, ...]]


@dataclass(frozen=True)
class Options:
    """Where RUN is a generalist."""

    task: Names = ()
    """Only this task of it; may come several times."""
    euler_steps: int | None = None
    """Euler steps of a chunk, in place of the head's."""

    def refuse(self) -> None:
        """Raises UserError where an option is set: RUN is no generalist."""
        for option in dataclasses.fields(self):
            if getattr(self, option.name) != option.default:
                flag = "--" + option.name.replace("_", "-")
                raise UserError(f"{flag} is for a generalist, and this is a policy of one task; leave it out.")

    def tasks(self, generalist: Generalist) -> list[str]:
        """Names of the chosen tasks. Raises UserError for one that the generalist was not taught."""
        if not self.task:
            return [skill.task for skill in generalist.skills]
        return [generalist.skill(name).task for name in dict.fromkeys(self.task)]


@dataclass(frozen=True)
class ActOptions(Options):
    """Where RUN is a generalist that acts."""

    execute: int | None = None
    """Actions of a chunk that are carried out, in place of what is set for each body."""
    noise: float = 1.0
    """Standard deviation of the noise that a chunk starts from; 0 for none."""


@dataclass(frozen=True)
class EvaluateOptions(ActOptions):
    """Where RUN is a generalist: its tasks beside their experts, and beside doing nothing."""

    expert: Names = ()
    """TASK=RUN or TASK=policy.onnx: the expert of a task, in place of the one that taught it."""
    prices: bool = False
    """Also with 1, 2, 4, 8, 16 actions of a chunk carried out, and in 1, 2, 4 Euler steps."""


@dataclass(frozen=True)
class PlayOptions(ActOptions):
    """Where RUN is a generalist: all its tasks side by side in one video, with what they are told."""

    say: str | None = None
    """Told to it in place of the task's own words; with one --task."""


def find_generalist(place: Path) -> Path | None:
    """The folder of the generalist that is meant: `place`, or what a distillation keeps in it; None: there is none."""
    if place.name in (META, WEIGHTS):
        place = place.parent
    return next((folder for folder in (place, place / "generalist", place / "best") if is_generalist(folder)), None)


# -- evaluate


def evaluate(folder: Path, options: EvaluateOptions, episodes: int, seed: int, threads: int, as_json: bool) -> int:
    """Measure a generalist's skills, print them, and keep them as evaluation.json and report.html in its folder."""
    generalist = load_generalist(folder)
    chosen = options.tasks(generalist)
    given = _given_experts(options.expert, chosen)
    measure = Measure(episodes, seed, threads, options.execute, options.euler_steps, options.noise)
    console = Console(stderr=True, highlight=False)
    reports: list[SkillReport] = []
    priced: list[Price] = []
    with console.status("") as status:
        for name in chosen:
            task = generalist.make_task(name)
            expert = find_expert(generalist, folder, task, given.get(name), console.print)
            reports.append(evaluate_skill(generalist, name, expert, measure, status.update))
            if options.prices:
                priced += prices(generalist, reports[-1], EXECUTES, EULER_STEPS, measure, status.update)
    data = {"generalist": str(folder), "episodes": episodes, "noise": options.noise,
            "skills": [dataclasses.asdict(report) for report in reports],
            "prices": [dataclasses.asdict(price) for price in priced]}  # fmt: skip
    page = None
    try:
        write_json_atomic(folder / EVALUATION, data)
        page = write_page(folder)
    except OSError as error:  # a generalist may lie where it can only be read
        console.print(f"cannot write into {folder}: {error.strerror}.")
    if as_json:
        print(json.dumps(data, indent=1))
        return 0
    out = table_console()
    out.print(f"{folder}: {len(reports)} tasks, {episodes} episodes each, seed {seed}")
    out.print(skill_table(reports))
    for report in reports:
        for who in (STUDENT, HELD_OUT):
            obeyed = report.runs[who].obeyed if who in report.runs else None
            if obeyed is not None:
                out.print(f"\n{report.task}, {who}: told (rows), did (columns)")
                out.print(matrix_table(obeyed))
    if priced:
        out.print("\nprice of chunks")
        out.print(price_table(priced))
    if page is not None:
        out.print(f"page: {page}")
    return 0


def find_expert(
    generalist: Generalist, folder: Path, task: Task, given: Path | None, say: Callable[[str], None]
) -> Player | None:
    """The expert of a task: the one that was named, else the one that taught, if it is still there and the same.

    Raises UserError where the named one cannot be used.
    """
    skill = generalist.skill(task.name)
    if given is not None:
        return _load(given, skill.task_ref, task).policy
    path = folder / skill.expert
    if not skill.expert or not path.exists():
        where = f"its expert {skill.expert} is not there" if skill.expert else "it is not known who its expert was"
        say(f"{task.name}: {where}; --expert {task.name}=RUN names one.")
        return None
    expert = _load(path, skill.task_ref, task)
    if expert.sha256 != skill.expert_sha256:
        say(f"{task.name}: {path} is not the expert that taught it; --expert {task.name}=RUN takes it nevertheless.")
        return None
    return expert.policy


def _load(place: Path, task_ref: str, task: Task) -> Expert:
    """An expert of a task, from a checkpoint or an ONNX file. Raises UserError for one of another task."""
    onnx = place.suffix == ".onnx"
    expert = load_onnx_expert(task_ref, place) if onnx else load_checkpoint_expert(find_checkpoint(place))
    if expert.task.name != task.name:
        raise UserError(f"{place}: an expert of '{expert.task.name}', not of '{task.name}'.")
    return expert


def _given_experts(pairs: Sequence[str], known: Sequence[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for pair in pairs:
        name, equals, place = pair.partition("=")
        if not equals or not place or name not in known:
            raise UserError(f"--expert {pair}: expected TASK=RUN with one of the tasks {', '.join(known)}.")
        found[name] = Path(place)
    return found


def skill_table(reports: Sequence[SkillReport]) -> Table:
    """One row a task; what was obeyed only where there is something to obey."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    told = any(HELD_OUT in report.runs for report in reports)
    titles = ("task", "body", "nothing", "expert", "student", "unit", "kept")
    titles += ("kept, held-out words", "obeyed", "obeyed, held-out words") if told else ()
    for title in titles:
        table.add_column(
            title, justify="left" if title in ("task", "body", "unit") else "right", no_wrap=title == "task"
        )
    for report in reports:
        cells = [report.task, report.embodiment]
        cells += [_mean(report, who) for who in (IDLE, EXPERT, STUDENT)]
        cells += [report.unit, _interval(report.kept)]
        if told:
            cells += [_interval(report.kept_held_out), _share(report, STUDENT), _share(report, HELD_OUT)]
        table.add_row(*cells)
    return table


def matrix_table(obeyed: Obeyed) -> Table:
    """Told to do X, did Y: counts of stretches."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("")
    for name in (*obeyed.commands, FELL):
        table.add_column(name, justify="right")
    for name, row in zip(obeyed.commands, obeyed.matrix, strict=True):
        table.add_row(name, *(str(count) if count else "." for count in row))
    return table


def price_table(priced: Sequence[Price]) -> Table:
    """What more and fewer actions of a chunk, and Euler steps, cost."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("task", "execute", "Euler steps", "fitness", "kept"):
        table.add_column(title, justify="left" if title == "task" else "right")
    for price in priced:
        numbers = (str(price.execute), str(price.steps), f"{price.fitness.value:.4g}")
        table.add_row(price.task, *numbers, _interval(price.kept))
    return table


def _interval(told: Estimate | None) -> str:
    return f"{told.value:.3f} [{told.low:.3f}, {told.high:.3f}]" if told else "-"


def _mean(report: SkillReport, who: str) -> str:
    return f"{report.runs[who].fitness.value:.4g}" if who in report.runs else "-"


def _share(report: SkillReport, who: str) -> str:
    obeyed = report.runs[who].obeyed if who in report.runs else None
    share = obeyed.share if obeyed else None
    return f"{share:.3f}" if share is not None else "-"


# -- play


def play(
    folder: Path, options: PlayOptions, out: Path | None, seconds: float | None, seed: int, width: int, height: int
) -> int:
    """Film a generalist: its tasks in one grid, or one alone."""
    generalist = load_generalist(folder)
    chosen = options.tasks(generalist)
    if options.say is not None and len(chosen) != 1:
        raise UserError(f"--say needs one --task; the generalist has {', '.join(chosen)}.")
    out = out or folder / "play.mp4"
    began = time.monotonic()
    cells = [_cell(generalist, name, options, seed) for name in chosen]
    size: dict[str, Any] = {"seed": seed, "width": width, "height": height}
    try:
        if len(cells) == 1 and options.say is None:
            path = record_video(cells[0].task, cells[0].player, out, seconds=seconds, **size)
        else:
            path = record_grid(cells, out, seconds=10.0 if seconds is None else seconds, **size)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; choose another --out.") from None
    if path is not None:
        print(f"{path} ({time.monotonic() - began:.0f} s to film)")
    return 0


def _cell(generalist: Generalist, name: str, options: PlayOptions, seed: int) -> Cell:
    task, said = generalist.make_task(name), options.say

    def words(env: TaskEnv) -> Sequence[str]:
        return told_words(env) if said is None else [said] * env.num_envs

    player = generalist.actor(
        task, execute=options.execute, steps=options.euler_steps, noise=options.noise, seed=seed, words=words
    )
    return Cell(task, player, lambda env: f"{name}\n{words(env)[0]}")


def player_of(folder: Path, options: PlayOptions, seed: int) -> tuple[Task, Player]:
    """The one task that is to be watched, and who acts in it. Raises UserError where several are meant."""
    generalist = load_generalist(folder)
    chosen = options.tasks(generalist)
    if len(chosen) != 1:
        raise UserError(f"--viewer shows one task; choose one with --task: {', '.join(chosen)}.")
    cell = _cell(generalist, chosen[0], options, seed)
    return cell.task, cell.player


# -- export


def export(folder: Path, options: Options, out: Path | None, as_json: bool) -> int:
    """Write each body's sampler as ONNX, and what the encoder makes of the words that it was taught."""
    generalist = load_generalist(folder)
    chosen = options.tasks(generalist)
    out = out or folder / "onnx"
    names = list(dict.fromkeys(generalist.skill(name).embodiment for name in chosen))
    reports = [export_head(generalist.head, name, out / f"{name}.onnx", options.euler_steps) for name in names]
    count = _write_contexts(generalist, chosen, out / "contexts.npz")
    if as_json:
        print(json.dumps({"bodies": reports, "contexts": str(out / "contexts.npz"), "phrases": count}, indent=1))
        return 0
    for report in reports:
        print(f"{report['path']}: {report['bytes']:,} bytes, {report['steps']} Euler steps; ONNX Runtime differs from "
              f"torch by at most {report['max_abs_diff']:.1e} over {report['samples_checked']} samples")  # fmt: skip
    print(f"{out / 'contexts.npz'}: context tokens and masks of {count} phrases")
    return 0


def _write_contexts(generalist: Generalist, chosen: Sequence[str], path: Path) -> int:
    """phrases (P,), tokens (P, L, C) and mask (P, L) of all phrases that tasks say, held-out ones included."""
    phrases: dict[str, None] = {}
    for name in chosen:
        task = generalist.make_task(name)
        if task.commands is None:
            phrases[task.instruction] = None
        else:
            phrases |= dict.fromkeys(
                phrase for held_out in (False, True) for phrase, _ in task.commands.phrases(held_out)
            )
    with torch.no_grad():
        tokens, mask = generalist.context_encoder()(list(phrases))
    buffer = io.BytesIO()
    np.savez(buffer, phrases=np.array(list(phrases)), tokens=tokens.numpy(), mask=mask.numpy())
    try:
        write_atomic(path, buffer.getvalue())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another --out.") from None
    return len(phrases)
