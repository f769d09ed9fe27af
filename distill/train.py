"""Experts into one generalist: cloning, then rounds in which the student plays and the experts label (DAgger).

A distillation is its folder:

    distill.json                      what was asked for
    pace.json                         how many steps fit into the minutes, where minutes were asked for
    data/<task>/round_00/ .json       what each task's player did in each round, as a dataset, and its report
    state_000500.pt .json             the state of the training, the last two
    metrics.jsonl, events.*           curves, also for TensorBoard
    head.pt, head.json                the generalist, when it is done
    result.json                       what came of it, written last

It goes on after a kill from what is in the folder and ends as an undisturbed one, bit for bit: all that is random
follows from the seed and from how far the training is, a round is played by the student of the step before it, and the
number of threads changes nothing.

Axes: none of its own; see `distill.clone` and `distill.dagger`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.action_head import ActionHead
from distill.bodies import make_embodiment, name_embodiments
from distill.clone import Learner, learning_rate, train_only
from distill.dagger import Played, open_round, play
from distill.dataset.mixture import MixtureLoader, MixtureSource
from distill.dataset.reader import EpisodeDataset
from distill.embodiments import EmbodimentTable
from distill.encoder import ScratchEncoder
from distill.experts import Expert
from distill.generalist import Actor, Generalist, Skill, load_generalist, save_generalist
from distill.pace import find_pace
from distill.train_config import to_json
from distill.train_request import DistillRequest, read_request, weights_digest
from distill.train_state import latest_state, save_state
from rl.record import RunWriter, read_json, write_json_atomic
from rl.train import available_threads
from tasks.errors import UserError

RESULT = "result.json"
DATA = "data"
LOG_STEPS = 20
"""Steps whose losses are one point of the curves."""


class Watcher:
    """What a distillation tells whoever watches; here: nothing is done with it."""

    def say(self, line: str) -> None:
        """A line for people."""

    def playing(self, task: str, number: int) -> None:
        """A task's round is about to be played, or to be read."""

    def played(self, played: Played) -> None:
        """It was."""

    def learning(self, number: int, done: int, until: int, total: int) -> None:
        """The training after round `number` is at step `done`, goes to step `until` of `total`."""

    def learnt(self, metrics: Mapping[str, Any]) -> None:
        """Metrics of some steps: iteration (steps so far), wall_s, loss, loss/<body>, learning_rate, samples_per_s."""


def distill(folder: Path, watcher: Watcher | None = None) -> Generalist:
    """Carry out, or go on with, the distillation that was asked for in a folder; returns the generalist.

    Sets torch's threads for this process.

    Raises:
        UserError: the request, an expert, the generalist that is added to, or data in the folder cannot be used.
    """
    folder, watcher = Path(folder), watcher or Watcher()
    request = read_request(folder)
    if (folder / RESULT).exists():
        watcher.say(f"{folder} is done already.")
        return load_generalist(folder)
    return Distillation(request, folder, watcher).run()


class Distillation:
    """A running distillation."""

    def __init__(self, request: DistillRequest, folder: Path, watcher: Watcher) -> None:
        """Load experts and the generalist that is added to, and find out whose bodies are whose."""
        self.request, self.config, self.folder, self.watcher = request, request.config, folder, watcher
        self._began = time.monotonic()
        self.threads = self.config.threads or available_threads()
        self.experts: dict[str, Expert] = {}
        for file in request.experts:
            expert = file.load()
            if expert.task.name in self.experts:
                raise UserError(f"two experts for task '{expert.task.name}'; expected one for each: leave one away.")
            self.experts[expert.task.name] = expert
        self.start = self._load_start()
        known = {}
        for skill in self.start.skills if self.start else ():
            known.setdefault(skill.embodiment, self.start.make_task(skill.task))  # type: ignore[union-attr]
        self.bodies = name_embodiments([expert.task for expert in self.experts.values()], known)
        """Task -> embodiment."""
        old = sorted(f"{task} ({body})" for task, body in self.bodies.items() if body in known)
        if request.freeze_trunk and old:
            raise UserError(
                f"with a frozen trunk only new bodies can be added; the generalist knows those of {', '.join(old)}: "
                "leave --freeze-trunk away, and give the experts of all tasks that are to be kept."
            )
        self.plays: list[Played] = []
        self._data: dict[tuple[str, int], EpisodeDataset] = {}

    def run(self) -> Generalist:
        """Play and learn until it is done."""
        self._play(0)
        learner = self._make_learner()
        if self.request.minutes:
            self._set_pace(learner)
            learner.config = self.config
        state = latest_state(self.folder, self.watcher.say)
        if state is not None:
            learner.load_state_dict(state)
        writer = RunWriter(self.folder, keep_until=learner.steps)
        wall_before = float(writer.kept[-1]["wall_s"]) if writer.kept else 0.0
        try:
            for number, until in enumerate(self.config.phase_steps):
                if number:
                    self._play(number, learner if learner.steps == self.config.phase_steps[number - 1] else None)
                if learner.steps < until:
                    self._learn(learner, number, until, state, writer, wall_before)
        finally:
            writer.close()
        return self._finish(learner, wall_before)

    def _load_start(self) -> Generalist | None:
        request = self.request
        if not request.add_to:
            return None
        start = load_generalist(Path(request.add_to))
        if weights_digest(Path(request.add_to)) != request.add_to_sha256:
            raise UserError(f"{request.add_to} is not what it was when this distillation began; start anew.")
        if not isinstance(start.encoder, ScratchEncoder):
            raise UserError(
                f"{request.add_to} reads words by the model {start.encoder.source}; only generalists with the embedded "
                "encoder can be added to."
            )
        return start

    def _play(self, number: int, learner: Learner | None = None) -> None:
        """Have every task's round played, or read that it was; a learner, where the student is at that round."""
        student: tuple[ActionHead, ScratchEncoder] | None = None
        for task, expert in self.experts.items():
            self.watcher.playing(task, number)
            if student is None and learner is not None and number:
                student = learner.student()
            actor = partial(self._actor, student, self.bodies[task], number)
            played = play(expert, self.bodies[task], number, self.config, self.folder / DATA, actor)
            self.plays.append(played)
            self._data[task, number] = open_round(self.folder / DATA, task, number)
            self.watcher.played(played)

    def _actor(self, student: tuple[ActionHead, ScratchEncoder] | None, body: str, number: int, seed: int) -> Actor:
        """Who plays round `number`."""
        if student is None:
            raise UserError(
                f"what was played in round {number} of {self.folder} is gone, and the student that played it has "
                "learnt more since; start anew."
            )
        return Actor(*student, body, seed=seed)

    def _make_learner(self) -> Learner:
        """The student as it begins: a new head, or the generalist's with the new bodies."""
        config, start = self.config, self.start
        if start is None:
            head, encoder = (
                ActionHead(config.head, EmbodimentTable(), config.seed),
                ScratchEncoder(config.encoder, config.seed),
            )
        else:
            assert isinstance(start.encoder, ScratchEncoder), "looked at when it was loaded"
            head, encoder = start.head, start.encoder
        for body in dict.fromkeys(self.bodies.values()):
            tasks = [task for task, its in self.bodies.items() if its == body]
            datasets = [self._data[task, 0] for task in tasks]
            if body in head.table.names:
                for dataset in datasets:
                    dataset.require_sizes(body, head.table[body].state_size, head.table[body].action_size)
            else:
                head.add(make_embodiment(body, self.experts[tasks[0]].task, datasets, config))
        train_only(head, encoder, self.bodies.values(), trunk=not self.request.freeze_trunk)
        return Learner(head, encoder, config, self.threads)

    def _set_pace(self, learner: Learner) -> None:
        left_s = 60.0 * self.request.minutes - (time.monotonic() - self._began)
        experts = {f"{self.bodies[task]}/{task}": expert for task, expert in self.experts.items()}
        batches = self._loader(learner, 0)
        pace = find_pace(self.folder, left_s, learner, batches.next_batch, experts, self.config, self.threads)
        self.config = dataclasses.replace(self.config, steps=pace.steps)
        self.watcher.say(
            f"{self.request.minutes:g} minutes: {pace.steps} steps of {pace.step_s:.3f} s, and {self.config.rounds} "
            f"rounds of at most {pace.round_s:.0f} s"
        )

    def _loader(self, learner: Learner, number: int) -> MixtureLoader:
        """Batches of all rounds so far: each task has the same share, its rounds by their frames."""
        sources = []
        for task, body in self.bodies.items():
            embodiment = learner.head.table[body]
            datasets = [self._data[task, played] for played in range(number + 1)]
            frames = sum(dataset.num_frames for dataset in datasets)
            for dataset in datasets:
                dataset.require_sizes(body, embodiment.state_size, embodiment.action_size)
                sources.append(MixtureSource(dataset, body, embodiment.history, embodiment.horizon,
                                             weight=dataset.num_frames / frames))  # fmt: skip
        return MixtureLoader(sources, batch_size=self.config.batch_size, seed=self.config.seed + number)

    def _learn(self, learner: Learner, number: int, until: int, state: Mapping[str, Any] | None, writer: RunWriter,
               wall_before: float) -> None:  # fmt: skip
        """Train to step `until` on what was played up to round `number`."""
        loader = self._loader(learner, number)
        if state is not None and state["round"] == number:
            loader.load_state_dict(state["loader"])
        self.watcher.learning(number, learner.steps, until, self.config.steps)
        sums: dict[str, Tensor] = {}
        counts: dict[str, int] = {}
        began, since = time.monotonic(), learner.steps
        while learner.steps < until:
            for body, loss in learner.learn(loader.next_batch()).items():
                sums[body] = sums[body] + loss if body in sums else loss
                counts[body] = counts.get(body, 0) + 1
            if learner.steps % LOG_STEPS == 0 or learner.steps == until:
                now = time.monotonic()
                losses = {f"loss/{body}": float(total) / counts[body] for body, total in sums.items()}
                metrics = {
                    "iteration": learner.steps,
                    "wall_s": round(wall_before + now - self._began, 3),
                    "loss": sum(losses.values()) / len(losses),
                    **losses,
                    "learning_rate": learning_rate(learner.steps - 1, self.config),
                    "samples_per_s": round((learner.steps - since) * self.config.batch_size / (now - began), 1),
                }
                writer.write(metrics)
                self.watcher.learnt(metrics)
                sums, counts, began, since = {}, {}, now, learner.steps
            if learner.steps % self.config.save_steps == 0 or learner.steps == until:
                extra = {"round": number, "loader": loader.state_dict()}
                save_state(self.folder, learner.steps, learner.state_dict() | extra)

    def _finish(self, learner: Learner, wall_before: float) -> Generalist:
        head, encoder = learner.student()
        head, encoder = head.cpu(), encoder.cpu()
        taught = tuple(
            Skill(task, expert.task_ref, self.bodies[task], str(expert.path), expert.sha256)
            for task, expert in self.experts.items()
        )
        before = tuple(skill for skill in (self.start.skills if self.start else ()) if skill.task not in self.experts)
        plays = [dataclasses.asdict(played) for played in self.plays]
        about = {"config": to_json(self.config), "plays": plays, "torch": torch.__version__}
        generalist = Generalist(head, encoder, (*before, *taught), about)
        save_generalist(generalist, self.folder)
        result = {
            "schema": 1,
            "steps": learner.steps,
            "wall_s": round(wall_before + time.monotonic() - self._began, 1),
            "plays": plays,
        }
        write_json_atomic(self.folder / RESULT, result)
        return generalist


def read_plays(folder: Path) -> list[Played]:
    """What was played in a distillation that is done. Raises UserError if it is not."""
    path = Path(folder) / RESULT
    data = read_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("plays"), list):
        raise UserError(f"{path}: not the result of a distillation.")
    return [Played(**{**one, "fitness": float(one["fitness"]), "fitness_std": float(one["fitness_std"])})
            for one in data["plays"]]  # fmt: skip
