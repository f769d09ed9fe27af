"""`eureka distill`: experts of many bodies into one policy that is told by words, with its progress on the terminal."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from distill.dagger import Played
from distill.encoder import ScratchEncoder
from distill.experts import Expert, load_checkpoint_expert, load_onnx_expert
from distill.generalist import load_generalist
from distill.train import Distillation, Watcher, distill, read_plays
from distill.train_config import DistillConfig, distill_config
from distill.train_request import DistillRequest, expert_files, read_request, weights_digest, write_request
from eureka.commands import generalists
from eureka.commands.places import find_checkpoint, parse_settings, with_settings
from eureka.commands.printing import table_console
from eureka.finals import EVAL_SEED
from rl.failures import disk_full
from tasks.errors import UserError, did_you_mean

_NOT_WITH_RESUME = ("experts", "set", "out", "preset", "objective", "rounds", "steps", "minutes", "seed", "add_to",
                    "freeze_trunk", "threads", "device")  # fmt: skip


@dataclass(frozen=True)
class Distill:
    """Make one policy out of experts of many bodies: cloning, then rounds in which it acts and the experts label."""

    experts: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="EXPERT")] = ()
    """Folder of a run or a search, a model_*.pt file, or TASK=policy.onnx. Not with --resume."""
    out: Path | None = None
    """The folder; runs/distill/TIME when not given."""
    preset: str | None = None
    """Size of the student: toy, tiny (when not given), base, n1."""
    objective: str | None = None
    """flow (when not given): flow matching; regression: the chunk itself, by L1."""
    rounds: int | None = None
    """Rounds in which the student acts; 0: cloning alone."""
    steps: int | None = None
    """Optimiser steps in all."""
    minutes: float = 0.0
    """In place of --steps: as many as fit into this time here, measured once; they are printed."""
    seed: int | None = None
    """Seed of weights, episodes and samples."""
    threads: int | None = None
    """CPU threads; 0 takes all cores. The student does not depend on it."""
    device: str | None = None
    """torch device of the student."""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Any other setting, as in --set bodies.quadcopter.execute=1 or --set batch_size=512."""
    add_to: Path | None = None
    """A generalist that learns these experts' tasks as well."""
    freeze_trunk: bool = False
    """With --add-to: train the adapters of new bodies alone; all that was there stays as it is, bit for bit."""
    resume: Path | None = None
    """Go on with the interrupted distillation in this folder."""
    evaluate: int = 64
    """Held-out episodes of each task at the end; 0: none."""
    json: bool = False
    """Print what came of it as JSON; no evaluation."""

    def run(self) -> int:
        """Distil, print how the student did in each round, and measure it."""
        if self.evaluate == 1 or self.evaluate < 0:
            raise UserError(f"--evaluate is {self.evaluate}; expected 0, or 2 and more.")
        if self.resume is not None:
            folder = self._interrupted(self.resume)
        else:
            folder = self._new()
        try:
            with _Show(shown=not self.json) as show:
                distill(folder, show)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted; go on with eureka distill --resume {folder}") from None
        except OSError as error:
            if not disk_full(error):
                raise
            raise UserError(
                f"the disk of {folder} is full, or a quota is used up; make room and go on with eureka distill "
                f"--resume {folder}."
            ) from None
        plays = read_plays(folder)
        if self.json:
            print(json.dumps({"folder": str(folder), "plays": [dataclasses.asdict(one) for one in plays]}, indent=1))
            return 0
        table_console().print(_table(plays))
        print(f"generalist: {folder}")
        if self.evaluate:
            threads = read_request(folder).config.threads
            options = generalists.EvaluateOptions()
            return generalists.evaluate(folder, options, self.evaluate, EVAL_SEED, threads, as_json=False)
        return 0

    def _new(self) -> Path:
        """Write the request into a new folder."""
        if not self.experts:
            raise UserError("eureka distill needs experts: folders of runs or searches, or TASK=policy.onnx.")
        if self.minutes < 0:
            raise UserError(f"--minutes is {self.minutes:g}; expected at least 0.")
        if self.minutes and self.steps is not None:
            raise UserError("--minutes and --steps both say how long to train; give one of them.")
        experts = [find_expert(text) for text in self.experts]
        add_to = self.add_to.resolve() if self.add_to is not None else None
        request = DistillRequest(
            experts=expert_files(experts),
            config=self._config(add_to),
            minutes=self.minutes,
            add_to=str(add_to or ""),
            add_to_sha256=weights_digest(add_to) if add_to is not None else "",
            freeze_trunk=self.freeze_trunk,
        )
        folder = self.out or _free_folder()
        Distillation(request, folder, Watcher())  # what cannot work is said before there is a folder
        write_request(request, folder)
        return folder

    def _config(self, add_to: Path | None) -> DistillConfig:
        given = {name: getattr(self, name) for name in ("rounds", "steps", "seed", "threads", "device")}
        settings = with_settings(parse_settings(self.set), **given)
        if self.objective is not None:
            settings = {**settings, "head": with_settings(dict(settings.get("head", {})), objective=self.objective)}
        if add_to is None:
            return distill_config(self.preset or "tiny", settings)
        if self.preset is not None:
            raise UserError("--preset is the size of a new student, and with --add-to there is one; leave it out.")
        start = load_generalist(add_to)
        if not isinstance(start.encoder, ScratchEncoder):
            raise UserError(
                f"{add_to} reads words by the model {start.encoder.source}; only generalists with the embedded encoder "
                "can be added to."
            )
        return distill_config("tiny", settings, (start.head.config, start.encoder.config))

    def _interrupted(self, folder: Path) -> Path:
        if not folder.is_dir():
            near = (
                did_you_mean(folder.name, [p.name for p in folder.parent.iterdir()]) if folder.parent.is_dir() else ""
            )
            raise UserError(f"there is no folder {folder} to resume.{near}")
        given = [f.name for f in dataclasses.fields(self) if f.name in _NOT_WITH_RESUME]
        if any(getattr(self, name) != getattr(Distill(), name) for name in given):
            raise UserError(
                "--resume goes on with the distillation as it was asked for; leave experts and settings out."
            )
        return folder


def find_expert(text: str) -> Expert:
    """The expert that a word of the command line means. Raises UserError if there is none."""
    task, equals, path = text.partition("=")
    if equals and not Path(text).exists():
        if not path.endswith(".onnx"):
            raise UserError(f"{text}: expected TASK=policy.onnx, or the folder of a run or a search.")
        return load_onnx_expert(task, Path(path))
    if text.endswith(".onnx"):
        raise UserError(f"{text}: an ONNX policy does not say its task; write TASK={text}.")
    return load_checkpoint_expert(find_checkpoint(Path(text)))


class _Show(Watcher):
    """One bar: steps, round, loss, time left; a line for each round that was played."""

    def __init__(self, shown: bool) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.shown = shown
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        self.progress = Progress(*columns, console=self.console, transient=True)
        self.bar = self.progress.add_task("starts", total=None)
        self._round = ""

    def __enter__(self) -> _Show:
        if self.shown and self.console.is_terminal:
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.shown and self.console.is_terminal:  # elsewhere, stopping what never started prints an empty line
            self.progress.stop()

    def say(self, line: str) -> None:
        """A line."""
        if self.shown:
            self.console.print(line, markup=False)

    def playing(self, task: str, number: int) -> None:
        """What the bar says meanwhile."""
        who = f"round {number}" if number else "the experts play"
        self.progress.update(self.bar, description=f"{who}: {task}")

    def played(self, played: Played) -> None:
        """A line."""
        who = {"expert": "the expert", "student": "the student", "both": "student and expert in turn"}[played.player]
        self.say(
            f"round {played.round}: {played.task}, {who}: fitness {played.fitness:.4g} +- {played.fitness_std:.2g}, "
            f"{played.frames:,} states"
        )

    def learning(self, number: int, done: int, until: int, total: int) -> None:
        """The bar gets its length."""
        self._round = f"after round {number}" if number else "cloning"
        self.progress.update(self.bar, total=total, completed=done, description=self._round)

    def learnt(self, metrics: Mapping[str, Any]) -> None:
        """The bar moves on; a line now and then where there is no terminal."""
        text = f"{self._round}  loss {metrics['loss']:.4f}  {metrics['samples_per_s']:,.0f} samples/s"
        self.progress.update(self.bar, completed=metrics["iteration"], description=text)
        total = self.progress.tasks[0].total or 1
        if not self.console.is_terminal and metrics["iteration"] % max(1, int(total) // 10) < 20:
            self.say(f"step {metrics['iteration']}/{int(total)}  {text}")


def _table(plays: list[Played]) -> Table:
    """A row for each task, a column for each round."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("fitness on the training's seeds")
    numbers = sorted({one.round for one in plays})
    for number in numbers:
        players = {one.player for one in plays if one.round == number}
        title = "expert" if number == 0 else f"round {number}" + (" (in turn)" if "both" in players else "")
        table.add_column(title, justify="right")
    for task in dict.fromkeys(one.task for one in plays):
        table.add_row(task, *(f"{one.fitness:.4g}" for one in plays if one.task == task))
    return table


def _free_folder() -> Path:
    folder = Path("runs") / "distill" / datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    while folder.exists():
        folder = folder.with_name(folder.name + "x")
    return folder
