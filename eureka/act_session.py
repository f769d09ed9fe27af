"""What `eureka act` is told, made into runs: the policy beneath, the planner on top, one tour after the other.

Each tour is a run of `distill.runtime` in a folder of its own; the session's `result.json` holds all of them.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill.dataset.episode import Origin
from distill.experts import load_checkpoint_expert
from distill.generalist import Generalist, is_generalist, load_generalist
from distill.planner import Planner, Vocabulary, choose
from distill.planner_manual import ManualPlanner
from distill.planner_oracle import OraclePlanner
from distill.planner_script import ScriptPlanner, read_script
from distill.runtime import INTERRUPTED, Body, BodyResult, RuntimeConfig, run
from distill.runtime_clock import Rates
from distill.runtime_driver import Driver, ExpertDriver, HeadDriver
from distill.runtime_eyes import Eyes
from distill.runtime_journal import RESULT, Journal
from distill.runtime_tape import Tape, tour_dataset
from distill.runtime_video import film_run
from eureka.commands.places import find_checkpoint
from eureka.planner_openai import OpenAIPlanner, PlannerConfig
from rl.export import require_fit
from rl.record import write_json_atomic
from tasks import registry
from tasks.env import TaskEnv, make_env
from tasks.errors import UserError
from tasks.task import Task
from tasks.tour import TourTask

PLANNERS = ("oracle", "openai", "script", "manual")
VIDEO = "video.mp4"
SCHEMA = 1


@dataclass(frozen=True)
class Wishes:
    """What a session is told."""

    task: str
    policy: Path
    planner: str = "oracle"
    goal: str | None = None
    skill: str | None = None
    script: Path | None = None
    free_language: bool = False
    timed: bool = False
    tours: int = 1
    seed: int = 0
    cameras: tuple[str, ...] = ("eyes", "above")
    image_size: tuple[int, int] = (320, 240)
    video: bool = False
    record: Path | None = None
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    endpoint: PlannerConfig = field(default_factory=PlannerConfig)
    out: Path = Path("act")


@dataclass(frozen=True)
class Tour:
    """One run of a session."""

    folder: str
    seed: int
    bodies: tuple[BodyResult, ...]
    rates: Rates | None
    video: str | None
    recorded: bool = False
    """Whether it is in the dataset of `record`."""


@dataclass(frozen=True)
class Session:
    """All runs of a session."""

    wishes: Wishes
    system_1: str
    """What acts, in words."""
    tours: tuple[Tour, ...]

    @property
    def successes(self) -> int | None:
        """Tours that were done; None where the task is no tour."""
        found = [body.success for tour in self.tours for body in tour.bodies]
        return None if None in found or not found else sum(all(b.success for b in tour.bodies) for tour in self.tours)

    @property
    def interrupted(self) -> bool:
        """Whether a person ended it."""
        return any(body.end == INTERRUPTED for tour in self.tours for body in tour.bodies)


def act(wishes: Wishes, say: Callable[[str], None], tour: Callable[[Wishes, int], Tour] | None = None) -> Session:
    """Run all tours; result.json is written after each.

    Args:
        wishes: What was told.
        say: Takes a line for people.
        tour: Runs one tour by its number, in place of one body's.

    Raises:
        UserError: something that was told cannot work; nothing has run then.
    """
    choose(wishes.planner, PLANNERS)
    task = registry.make(wishes.task)
    if task.commands is None:
        raise UserError(
            f"task '{task.name}' has no commands, so there is nothing to plan; take ant-tour, or a task whose name "
            "ends in -command."
        )
    if wishes.tours < 1 or wishes.seed < 0:
        raise UserError(f"{wishes.tours} tours from seed {wishes.seed}; expected at least 1, and 0.")
    policy = load_system_1(wishes, task)
    vocabulary = Vocabulary(task.commands, free=wishes.free_language)
    eyes = _eyes(wishes, task)
    tours: list[Tour] = []
    session = Session(wishes, policy.words, ())
    try:
        for number in range(wishes.tours):
            one = tour(wishes, number) if tour else _tour(wishes, policy, vocabulary, eyes, number, say)
            tours.append(one)
            session = Session(wishes, policy.words, tuple(tours))
            write_json_atomic(wishes.out / RESULT, as_data(session))
            if session.interrupted:
                break
    finally:
        if eyes is not None:
            eyes.close()
    return session


@dataclass(frozen=True)
class SystemOne:
    """A policy that was loaded, and how to drive it."""

    words: str
    make: Callable[[Task, float | None, int], Driver]
    """Task, seconds of a control step (None: any), seed -> a driver for one world."""


def load_system_1(wishes: Wishes, task: Task) -> SystemOne:
    """A generalist or an expert of the body. Raises UserError where it does not fit the task."""
    if is_generalist(wishes.policy):
        generalist = load_generalist(wishes.policy)
        skill = wishes.skill or (task.trained_on() if isinstance(task, TourTask) else task.name)
        generalist.embodiment(skill)
        return SystemOne(f"head of {wishes.policy}, taught {skill}", _head(generalist, skill))
    if wishes.free_language:
        raise UserError("--free-language needs a distilled head; an expert takes numbers, and knows its list alone.")
    checkpoint = find_checkpoint(wishes.policy)
    expert = load_checkpoint_expert(checkpoint)
    env = make_env(task, 1, num_threads=1)
    sizes = env.num_observations, env.num_actions
    env.close()
    require_fit(expert.policy, task, *sizes)  # type: ignore[arg-type]
    taught = expert.task.commands
    if taught is None or task.commands is None or taught.names != task.commands.names:
        raise UserError(f"{checkpoint}: an expert of '{expert.task.name}', which is not told what '{task.name}' tells.")
    return SystemOne(f"expert {checkpoint}, of {expert.task.name}", lambda task, *_: ExpertDriver(expert.policy, task))


def _head(generalist: Generalist, skill: str) -> Callable[[Task, float | None, int], Driver]:
    return lambda task, step_s, seed: HeadDriver(generalist, skill, task, step_s=step_s, seed=seed)


def as_data(session: Session) -> dict[str, Any]:
    """A session as plain data."""
    wishes = dataclasses.asdict(session.wishes)
    wishes |= {name: str(wishes[name]) for name in ("policy", "out", "script", "record") if wishes[name] is not None}
    return {
        "schema": SCHEMA,
        "asked": wishes,
        "system_1": session.system_1,
        "successes": session.successes,
        "tours": [dataclasses.asdict(tour) for tour in session.tours],
    }


def _tour(
    wishes: Wishes,
    policy: SystemOne,
    vocabulary: Vocabulary,
    eyes: Eyes | None,
    number: int,
    say: Callable[[str], None],
) -> Tour:
    """One run, from the world to its video."""
    task = registry.make(wishes.task)
    seed = wishes.seed + number
    name = f"tour_{number:03d}"
    journal = Journal(wishes.out / name)
    env = make_env(task, 1, seed=seed, num_threads=1)
    step_s = task.control_dt_s / wishes.runtime.speed if wishes.runtime.speed else None
    try:
        box: list[Body] = []
        goal = wishes.goal or (task.tour_goals(env.sim)[0] if isinstance(task, TourTask) else "")
        body = Body(
            "body",
            env,
            policy.make(task, step_s, seed),
            _planner(wishes, task, env, vocabulary, box, say),
            goal,
            wishes.runtime,
            journal,
            vocabulary=vocabulary,
            look=eyes.look if eyes is not None else (lambda state: ()),
            tape=None if wishes.record is None else Tape(),
        )
        box.append(body)
        results, rates = run([body], wishes.runtime)
        video = None
        if wishes.video:
            video = film_run([body], wishes.out / name / VIDEO, frame_s=body.frame_s, say=say)
        recorded = _record(wishes, policy, body, seed)
    finally:
        env.close()
    tour = Tour(name, seed, tuple(results), rates, None if video is None else f"{name}/{VIDEO}", recorded)
    journal.close(dataclasses.asdict(tour))
    return tour


def _record(wishes: Wishes, policy: SystemOne, body: Body, seed: int) -> bool:
    """Add a tour that was done to the dataset of demonstrations; whether it is there now."""
    if wishes.record is None or body.tape is None or body.end != "success":
        return False
    source = f"{body.env.task.name} {body.two.planner.name} planner, {policy.words}"
    writer = tour_dataset(wishes.record, body.env, body.env.task.name)
    try:
        there = any((origin.source, origin.seed) == (source, seed) for origin in writer.origins)
        if not there:
            writer.add_episode(body.tape.episode(body.goal, Origin(source, seed, 0, body.progress)))
    finally:
        writer.close()
    return True


def _planner(
    wishes: Wishes, task: Task, env: TaskEnv, vocabulary: Vocabulary, box: Sequence[Body], say: Callable[[str], None]
) -> Planner:
    """The planner that was asked for. box: holds the body once it is there."""
    if wishes.planner == "openai":
        if not (wishes.goal or isinstance(task, TourTask)):
            raise UserError(f"task '{task.name}' names no goal of its own; say one with --goal.")
        return OpenAIPlanner(wishes.endpoint, vocabulary)
    if wishes.planner == "script":
        if wishes.script is None:
            raise UserError("--planner script needs --script FILE: lines such as '2.5 run forward'.")
        return ScriptPlanner(read_script(wishes.script, vocabulary))
    if wishes.planner == "manual":
        return ManualPlanner(sys.stdin, vocabulary, say)
    if not isinstance(task, TourTask):
        raise UserError(f"the oracle knows its way on tours alone, such as ant-tour; '{task.name}' is none.")
    assert task.commands is not None
    return OraclePlanner(lambda: task.tour_facts(box[0].view), task.commands, timed=wishes.timed)


def _eyes(wishes: Wishes, task: Task) -> Eyes | None:
    """Cameras for a planner that wants to see."""
    if wishes.planner != "openai":
        return None
    cameras = wishes.cameras if isinstance(task, TourTask) else tuple(filter(None, (task.camera,)))
    if not cameras:
        raise UserError(f"task '{task.name}' has no camera; name some with --cameras.")
    return Eyes(task, cameras, *wishes.image_size)
