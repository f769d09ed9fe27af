"""System 2 of one body: when its planner is asked, what becomes of the answer, and what of none.

The same steps serve a thread of its own in real time and a world that waits. Nothing here is awaited by the fast loop:
what it reads is `InForce`. An answer that is no instruction of the list, a planner that raises, is slow or gone are
noted, and leave what is in force as it is until its time is up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from distill.planner import NOTE_KEPT, Picture, Planner, PlannerDone, PlannerError, Subtask, Turn, Vocabulary
from distill.runtime_driver import Driver
from distill.runtime_journal import Journal
from distill.runtime_orders import InForce, Order
from tasks.errors import UserError

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 5.0
"""Between a failure and the next question; doubled with each in a row."""
NAP_S = 0.005
"""How often the thread looks whether it is time to ask."""


@dataclass(frozen=True)
class Rhythm:
    """When planners are asked. Seconds are simulated ones."""

    planner_hz: float = 10.0
    """Questions a second at most."""
    hold_s: float = 2.0
    """How long an instruction without a duration holds after the planner last said it."""
    give_up_after: int = 8
    """Failures in a row after which a planner counts as dead."""

    def __post_init__(self) -> None:
        for name in ("planner_hz", "hold_s", "give_up_after"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} is {getattr(self, name)}, expected a number above 0.")


@dataclass(frozen=True)
class Answer:
    """What a planner said, as System 1 takes it."""

    order: Order
    subtask: Subtask
    asked_s: float
    event: dict[str, Any]


class SystemTwo:
    """Asks one planner."""

    def __init__(
        self,
        body: str,
        planner: Planner,
        goal: str,
        vocabulary: Vocabulary,
        driver: Driver,
        in_force: InForce,
        rhythm: Rhythm,
        journal: Journal,
        look: Callable[[], Sequence[Picture]],
    ) -> None:
        """look: draws what the planner sees; called only where it wants images."""
        self.body, self.planner, self.goal = body, planner, goal
        self.history: list[Turn] = []
        self.over: str | None = None
        """Why no more is asked: in words."""
        self.latencies_s: list[float] = []
        """Seconds of the machine's time from each question to its answer, failures included."""
        self.counts: dict[str, int] = {"asked": 0, "answered": 0}
        """What became of the questions, by kind."""
        self._vocabulary, self._driver, self._in_force = vocabulary, driver, in_force
        self._rhythm, self._journal, self._look = rhythm, journal, look
        self._next_s = 0.0
        self._failures = 0
        self._told_s: float | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def due(self, now_s: float) -> bool:
        """Whether it is time to ask."""
        return self.over is None and now_s >= max(self._next_s, self._in_force.runs_until()) - 1e-9

    def ask(self, now_s: float) -> Answer | None:
        """Ask once, for as long as it takes. None: no answer that can be told; it is noted why."""
        self.counts["asked"] += 1
        self._next_s = now_s + 1.0 / self._rhythm.planner_hz
        event: dict[str, Any] = {"body": self.body}
        began = time.perf_counter()
        try:
            pictures = self._look() if self.planner.wants_images else ()
            event["images"] = self._journal.keep(self.body, pictures)
            began = time.perf_counter()
            subtask = self.planner.plan(pictures, self.goal, self._past(now_s))
            event |= {"instruction": subtask.instruction, "until": subtask.until, "note": subtask.note[:NOTE_KEPT]}
            order = self._driver.prepare(self._vocabulary.checked(subtask.instruction))
        except PlannerDone as end:
            self._end(now_s, "done", str(end))
            return None
        except PlannerError as error:
            self._failed(now_s, error.kind, str(error), error.final, event | self._latency(began))
            return None
        except UserError as error:
            self._failed(now_s, "not_in_the_list", str(error), False, event | self._latency(began))
            return None
        except Exception as error:  # a planner's own fault must not leave the body to its last instruction
            text = " ".join(f"{type(error).__name__}: {error}".split())
            self._failed(now_s, "crashed", text, True, event | self._latency(began))
            return None
        return Answer(order, subtask, now_s, event | self._latency(began))

    def tell(self, answer: Answer, now_s: float) -> None:
        """Put an answer in force."""
        self._failures = 0
        self.counts["answered"] += 1
        subtask = replace(answer.subtask, instruction=answer.order.instruction)
        self._in_force.tell(answer.order, now_s, subtask.until)
        self._journal.note("told", now_s, asked_s=round(answer.asked_s, 4), **answer.event)
        last = self.history[-1].subtask if self.history else None
        if last is None or subtask.until is not None or last.instruction != subtask.instruction or last.until:
            self.history = [*self._past(now_s), Turn(now_s, subtask, 0.0)]
            self._told_s = now_s

    def run(self, now: Callable[[], float]) -> None:
        """Ask in a thread of its own until `stop`. now: simulated time."""

        def loop() -> None:
            while not self._stop.is_set() and self.over is None:
                if not self.due(now()):
                    self._stop.wait(NAP_S)
                    continue
                answer = self.ask(now())
                if answer is not None and not self._stop.is_set():
                    self.tell(answer, now())

        self._thread = threading.Thread(target=loop, name=f"planner of {self.body}", daemon=True)
        self._thread.start()

    def stop(self, patience_s: float = 2.0) -> None:
        """End the thread; a planner that does not come back is left behind."""
        self._stop.set()
        self.planner.close()
        if self._thread is not None:
            self._thread.join(patience_s)

    def _past(self, now_s: float) -> list[Turn]:
        """The history up to now."""
        if not self.history or self._told_s is None:
            return list(self.history)
        last = self.history[-1]
        held = now_s - self._told_s
        return [
            *self.history[:-1],
            replace(last, held_s=held if last.subtask.until is None else min(held, last.subtask.until)),
        ]

    def _latency(self, began: float) -> dict[str, Any]:
        latency_s = time.perf_counter() - began
        self.latencies_s.append(latency_s)
        return {"latency_s": round(latency_s, 4), "planner": dict(self.planner.facts())}

    def _failed(self, now_s: float, kind: str, text: str, final: bool, event: dict[str, Any]) -> None:
        if self._stop.is_set():  # cut short by the end of the run, which is nobody's fault
            return
        self._failures += 1
        self.counts[kind] = self.counts.get(kind, 0) + 1
        pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (self._failures - 1))
        self._next_s = now_s + pause
        self._journal.note("failed", now_s, what=kind, error=text, **event)
        if final or self._failures >= self._rhythm.give_up_after:
            row = "" if final else f" ({self._failures} failures in a row)"
            self._end(now_s, "dead", f"{text}{row}")

    def _end(self, now_s: float, kind: str, text: str) -> None:
        self._journal.note(kind, now_s, body=self.body, error=text)
        self.over = f"the planner is {kind}: {text}" if kind == "dead" else text
