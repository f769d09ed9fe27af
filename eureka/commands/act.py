"""`eureka act`: a planner on top, a policy beneath, both at their own rates, in the simulator."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console

from distill.runtime import RuntimeConfig
from distill.runtime_system2 import Rhythm
from eureka.act_page import write_page
from eureka.act_pair import tour_of_two
from eureka.act_session import Tour, Wishes, act, as_data
from eureka.planner_openai import PlannerConfig
from tasks import registry
from tasks.errors import UserError

HELD_OUT_SEED = 900_001
"""First seed of tours: no training and no collection of ours begins there."""


@dataclass(frozen=True)
class Act:
    """Carry out a goal: a planner breaks it into instructions, a policy acts on them at control rate."""

    task: str
    """A tour (ant-tour, humanoid-tour), or a task with commands, such as ant-command, told by hand."""
    policy: Path
    """Folder of a generalist, or a run or checkpoint of the commanded task, driven by the commands' numbers."""
    planner: str = "oracle"
    """oracle (positions from the simulator), openai (a vision endpoint), script (a file) or manual (you type)."""
    goal: str | None = None
    """What is wanted, in words; a tour's own when not given."""
    second: str | None = None
    """Another tour, such as quadcopter-tour: its body waits until the first one is at a post, then goes there too."""
    second_policy: Path | None = None
    """What drives the second body; --policy when not given."""
    skill: str | None = None
    """Task that a generalist was taught, where it is not the one beneath the tour."""
    script: Path | None = None
    """File of the script planner: lines such as '2.5 run forward'."""
    free_language: bool = False
    """Let instructions through that the body was not trained on; a generalist reads them as they are."""
    timed: bool = False
    """Let the oracle give each instruction a duration, as a slow planner should."""
    speed: float = 1.0
    """Simulated seconds a second; 0 is as fast as possible: the world then waits for the planner."""
    planner_hz: float = 10.0
    """Questions to the planner a second at most, in simulated time."""
    hold_s: float = 2.0
    """How long an instruction without a duration holds when the planner is silent; then the body stands still."""
    delay_s: float = 0.0
    """At speed 0: simulated seconds that each answer takes."""
    max_s: float | None = None
    """Longest run in simulated seconds; the task's time limit when not given."""
    tours: int = 1
    """Runs, each from the next seed."""
    seed: int = HELD_OUT_SEED
    """Seed of the first run."""
    cameras: str = "eyes,above"
    """What the planner sees: eyes (out of the body), above, overview."""
    image_size: str = "320x240"
    """Pixels of its pictures."""
    endpoint: tyro.conf.OmitArgPrefixes[PlannerConfig] = field(default_factory=PlannerConfig)
    """The endpoint of the openai planner."""
    video: bool = False
    """Film each run: from outside, out of the body's eyes, and the words in force."""
    record: Path | None = None
    """Dataset (LeRobot v3.0) that takes the tours that were done, the words in force as subtasks."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of the record; runs/TASK/act/DATE when not given."""
    json: bool = False
    """Print result.json."""

    def run(self) -> int:
        """Run, write the page, print what came of it; exit code 1 where a tour failed."""
        torch.set_num_threads(1)  # one world: threads would only take the second core from the planner
        task = registry.make(self.task)
        say = Console(stderr=True, highlight=False, soft_wrap=True).print
        out = self.out or Path("runs") / task.name / "act" / datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        if (out / "result.json").exists():
            raise UserError(f"{out} holds a record already; choose another --out.")
        session = act(self._wishes(out), say, self._tour_of_two(say))
        page = write_page(session)
        if self.json:
            print(json.dumps(as_data(session), indent=1))
        else:
            for tour in session.tours:
                print(_line(tour))
            if session.successes is not None and len(session.tours) > 1:
                print(f"{session.successes} of {len(session.tours)} tours succeeded")
            print(page)
        if session.interrupted:
            raise KeyboardInterrupt(f"interrupted; the record is in {out}")
        return 0 if session.successes in (None, len(session.tours)) else 1

    def _tour_of_two(self, say: Callable[[str], None]) -> Callable[[Wishes, int], Tour] | None:
        """How each run goes where there are two bodies."""
        if self.second is None:
            return None
        second, policy = self.second, self.second_policy or self.policy
        return lambda wishes, number: tour_of_two(wishes, second, policy, number, say)

    def _wishes(self, out: Path) -> Wishes:
        rhythm = Rhythm(planner_hz=self.planner_hz, hold_s=self.hold_s)
        return Wishes(
            task=self.task,
            policy=self.policy,
            planner=self.planner,
            goal=self.goal,
            skill=self.skill,
            script=self.script,
            free_language=self.free_language,
            timed=self.timed,
            tours=self.tours,
            seed=self.seed,
            cameras=tuple(name.strip() for name in self.cameras.split(",") if name.strip()),
            image_size=_size(self.image_size),
            video=self.video,
            record=self.record,
            runtime=RuntimeConfig(speed=self.speed, rhythm=rhythm, delay_s=self.delay_s, max_s=self.max_s),
            endpoint=self.endpoint,
            out=out,
        )


def _size(text: str) -> tuple[int, int]:
    width, times, height = text.partition("x")
    if not (times and width.isdigit() and height.isdigit()):
        raise UserError(f"--image-size is '{text}'; expected WIDTHxHEIGHT, such as 320x240.")
    return int(width), int(height)


def _line(tour: Tour) -> str:
    """One tour in one line."""
    parts = []
    for body in tour.bodies:
        silent = f", silent {body.silences} times" if body.silences else ""
        parts.append(f"{body.goal or 'no goal'}: {body.end} after {body.time_s:.1f} s{silent}")
    rates = tour.rates
    kept = ""
    if rates is not None and rates.wanted_s:
        kept = (
            f"; {1 / rates.mean_s:.1f} Hz of {1 / rates.wanted_s:.1f} kept, p99 of the period "
            f"{1e3 * rates.p99_s:.2f} ms of {1e3 * rates.wanted_s:.2f}"
        )
    return f"{tour.folder}: {' | '.join(parts)}{kept}"
