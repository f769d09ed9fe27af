"""Both systems at once: bodies that are controlled at their task's rate, and planners that tell them what to do.

In real time each planner has a thread of its own, and the fast loop never waits for it: a planner that is late, fails
or dies leaves the last instruction in force for `hold_s` (or for its duration), then the body stands still. As fast as
possible (speed 0) the world waits instead: planners are asked between two steps, an answer comes `delay_s` of simulated
time later, and the run is a function of its seed.

A run ends when every body has ended: its tour is done, it fell, its time is up, or its planner has nothing more to say
and it has stood for `after_s`.

Axes: one world for each body.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from distill.planner import Picture, Planner, Vocabulary
from distill.runtime_clock import Pacer, Rates
from distill.runtime_driver import Driver
from distill.runtime_journal import Journal
from distill.runtime_orders import InForce
from distill.runtime_state import StateCopy, copy_state
from distill.runtime_system2 import Answer, Rhythm, SystemTwo
from distill.runtime_tape import Tape
from tasks.env import TaskEnv
from tasks.errors import UserError
from tasks.tour import TourTask

INTERRUPTED = "interrupted"
"""End of a body whose run was ended from outside, by Ctrl-C or by `interrupted`."""
SWITCH_S = 0.0005
"""How long one Python thread may keep another waiting: the default of 5 ms is most of a control step."""


@dataclass(frozen=True)
class RuntimeConfig:
    """How a run goes."""

    speed: float = 1.0
    """Simulated seconds a second; 0: as fast as possible, and the world waits for its planners."""
    rhythm: Rhythm = field(default_factory=Rhythm)
    """When planners are asked."""
    delay_s: float = 0.0
    """At speed 0: simulated time that an answer takes."""
    after_s: float = 3.0
    """How long a body stands after its planner has nothing more to say, simulated s."""
    max_s: float | None = None
    """Longest run, simulated s; None: the task's time limit."""
    frame_s: float = 0.08
    """Simulated time between two frames that are kept for a video."""

    def __post_init__(self) -> None:
        for name, least in (("speed", 0.0), ("delay_s", 0.0), ("after_s", 0.0)):
            if not getattr(self, name) >= least:
                raise UserError(f"{name} is {getattr(self, name)}, expected a number of at least {least:g}.")
        if self.delay_s and self.speed:
            raise UserError(f"delay_s is {self.delay_s} at speed {self.speed}; only at speed 0 is an answer held back.")


@dataclass(frozen=True)
class BodyResult:
    """How one body's run ended."""

    body: str
    """Its name."""
    goal: str
    """What its planner was told."""
    end: str
    """Why it ended: "success", "time limit", a failure's name, or what its planner said."""
    success: bool | None
    """Whether the tour was done; None where the task is none."""
    progress: float | None
    """Share of the tour that was done."""
    time_s: float
    """Simulated time it took."""
    standing: bool
    """Whether it was told to stand still at the end."""
    speed_m_s: float | None
    """How fast it moved at the end, where the task says."""
    silences: int
    """How often an instruction was dropped because the planner was silent."""
    counts: dict[str, int]
    """Questions by what became of them."""
    latency_s: dict[str, float] | None
    """Median, p90 and longest seconds of a question; None without one."""
    planner: dict[str, Any]
    driver: dict[str, Any]


class Body:
    """One body with its two systems."""

    def __init__(
        self,
        name: str,
        env: TaskEnv,
        driver: Driver,
        planner: Planner,
        goal: str,
        config: RuntimeConfig,
        journal: Journal,
        *,
        vocabulary: Vocabulary,
        look: Callable[[StateCopy], Sequence[Picture]] = lambda state: (),
        tape: Tape | None = None,
    ) -> None:
        """
        Args:
            name: For records.
            env: Its one world.
            driver: System 1.
            planner: System 2.
            goal: What the planner is told.
            config, journal: Of the run.
            vocabulary: What the body can be told.
            look: Draws a state for the planner.
            tape: Takes every step, to be a demonstration.

        Raises:
            UserError: more worlds than one.
        """
        if env.num_envs != 1:
            raise UserError(f"{name} has {env.num_envs} worlds; a run has one for each body.")
        self.name, self.env, self.driver, self.goal = name, env, driver, goal
        still = driver.prepare(vocabulary.still)
        self.in_force = InForce(still, config.rhythm.hold_s)
        self.view: StateCopy = copy_state(env)
        """The newest state; replaced, never written into."""
        self.time_s = 0.0
        self.end: str | None = None
        self.frames: list[np.ndarray] = []
        """Positions of the visual model, one row every `frame_s`."""
        self.captions: list[str] = []
        """What was in force then."""
        self.progress = 0.0
        self.tape = tape
        self._journal, self._config = journal, config
        self.stride = max(1, round(config.frame_s / env.task.control_dt_s))
        """Control steps between two frames that are kept."""
        self.frame_s = self.stride * env.task.control_dt_s
        """Simulated time between two frames that are kept."""
        self._steps = 0
        self._over_s: float | None = None
        self._pending: list[tuple[float, Answer]] = []
        self._lapses = 0
        self.two = SystemTwo(
            name, planner, goal, vocabulary, driver, self.in_force, config.rhythm, journal, lambda: look(self.view)
        )

    def step(self) -> None:
        """One control step: what is in force is acted on."""
        order = self.in_force.at(self.time_s)
        if self._steps % self.stride == 0:
            self.frames.append(self.view.shown(self.env.task))
            self.captions.append(order.instruction)
        actions = self.driver.act(self.env, order)
        if self.tape is not None:
            self.tape.before(self.env, order.instruction, actions)
        step = self.env.step(actions)
        if self.tape is not None:
            self.tape.after(step)
        self._steps += 1
        self.time_s = self._steps * self.env.task.control_dt_s
        if isinstance(self.env.task, TourTask):
            self.progress = max(self.progress, float(step.signals["tour_progress"][0, 0]))
        if bool(step.done[0]):
            reasons = [name for name, held in step.reasons.items() if bool(held[0])]
            self.end = ", ".join(reasons) or "time limit"
            return  # the world holds another episode by now
        self.view = copy_state(self.env)
        if self.progress >= 1.0:
            self.end = "success"
        elif self._config.max_s is not None and self.time_s >= self._config.max_s - 1e-9:
            self.end = "time limit"
        elif self.two.over is not None:
            self._wind_down(self.two.over)

    def plan_in_step(self) -> None:
        """Ask between two steps, and tell what is due."""
        now = self.time_s
        if not self._pending and self.two.due(now):
            answer = self.two.ask(now)
            if answer is not None:
                self._pending.append((now + self._config.delay_s, answer))
        if self._pending and now >= self._pending[0][0] - 1e-9:
            self.two.tell(self._pending.pop(0)[1], now)

    def result(self) -> BodyResult:
        """How it ended; notes what the fast loop could not write down."""
        for lapse in self.in_force.lapses:
            self._journal.note("lapse", lapse.time_s, body=self.name, instruction=lapse.instruction, why=lapse.why)
        task, latencies = self.env.task, self.two.latencies_s
        tour = isinstance(task, TourTask)
        speed = None
        if isinstance(task, TourTask):
            speed = float(task.tour_motion(task.signals(self.view))[0][0])  # type: ignore[arg-type]
        quantiles = np.quantile(latencies, (0.5, 0.9, 1.0)).tolist() if latencies else None
        return BodyResult(
            body=self.name,
            goal=self.goal,
            end=self.end or INTERRUPTED,
            success=self.end == "success" if tour else None,
            progress=self.progress if tour else None,
            time_s=self.time_s,
            standing=self.in_force.at(self.time_s).instruction == self.in_force.still.instruction,
            speed_m_s=speed,
            silences=sum(lapse.why == "planner silent" for lapse in self.in_force.lapses),
            counts=dict(self.two.counts),
            latency_s=dict(zip(("median", "p90", "longest"), quantiles, strict=True)) if quantiles else None,
            planner={"name": self.two.planner.name, **self.two.planner.facts()},
            driver=self.driver.facts(),
        )

    def _wind_down(self, why: str) -> None:
        """The planner has nothing more to say: what it said last runs out, then the body stands for a while."""
        if self._over_s is None:
            if self.in_force.at(self.time_s) is not self.in_force.still:
                return
            self.in_force.stand_still(self.time_s)
            self._over_s = self.time_s
        if self.time_s - self._over_s >= self._config.after_s - 1e-9:
            self.end = why


def run(
    bodies: Sequence[Body],
    config: RuntimeConfig,
    *,
    interrupted: Callable[[], bool] = lambda: False,
    on_frame: Callable[[], None] | None = None,
    pacer: Pacer | None = None,
) -> tuple[list[BodyResult], Rates | None]:
    """Run until every body has ended.

    Args:
        bodies: All have the same control rate.
        config: As the bodies were made with.
        interrupted: Asked each step; True ends the run.
        on_frame: Called when a frame is due, before the step, however many bodies still run.
        pacer: Keeps the rate; None: one of the config's speed.

    Returns:
        How each body ended, and how the fast loop kept its rate (at speed 0: how fast it was).

    Raises:
        UserError: bodies of different control rates.
    """
    periods = {body.env.task.control_dt_s for body in bodies}
    if len(periods) != 1:
        raise UserError(f"the bodies' control periods are {sorted(periods)} s; expected the same for all.")
    pacer = pacer or Pacer(periods.pop() / config.speed if config.speed else 0.0)
    steps = 0
    try:
        with torch.no_grad(), _undisturbed():
            if config.speed:
                for body in bodies:
                    body.two.run(lambda body=body: body.time_s)
            while not interrupted() and (running := [body for body in bodies if body.end is None]):
                pacer.wait()
                if on_frame is not None and steps % bodies[0].stride == 0:
                    on_frame()
                steps += 1
                for body in running:
                    if not config.speed:
                        body.plan_in_step()
                    body.step()
                pacer.worked()
    except KeyboardInterrupt:  # what was done so far is worth its record
        for body in bodies:
            body.end = body.end or INTERRUPTED
    finally:
        for body in bodies:
            body.two.stop()
            body.driver.close()
    return [body.result() for body in bodies], pacer.rates()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Python's lock changes hands quickly, and its garbage collector looks only at what is new."""
    switch_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        sys.setswitchinterval(switch_s)
