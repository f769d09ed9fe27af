"""A designer with written answers, a listener that kills its search, and a search that takes seconds."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from eureka.archive import Archive
from eureka.designers.base import Ask, DesignerConfig, Reply
from eureka.listener import Listener
from eureka.search_config import SearchConfig

SLIDER = Path(__file__).parents[1] / "data" / "slider.py"


def program(weight: float, name: str) -> str:
    """A valid reply whose only component is called `name`."""
    return (
        f"I pull the mass to the middle.\n\n```python\nimport torch\n\ndef compute_reward(mass_position):\n"
        f"    {name} = {weight} * torch.exp(-torch.square(mass_position[:, 0]))\n"
        f'    return {name}, {{"{name}": {name}}}\n```\n'
    )


BROKEN = "```python\ndef compute_reward(mass_postion):\n    return mass_postion[:, 0], {}\n```"


def component_of(candidate_id: str) -> str:
    """The component name that tells which reply a training belongs to."""
    return f"pull_{candidate_id}"


class ScriptedDesigner:
    """Answers in reverse order; every reply carries its candidate's name. Sample 1 is broken until repaired once."""

    name = "scripted"

    def __init__(self, log: Path | None = None, never_mended: tuple[str, ...] = ()) -> None:
        self.log = log
        self.never_mended = never_mended
        self.asked: list[Ask] = []

    def check(self) -> None:
        """Nothing to check."""

    def answer(self, asks: Sequence[Ask], on_reply: Callable[[Reply], None]) -> None:
        """See the class."""
        for ask in reversed(asks):
            self.asked.append(ask)
            if self.log is not None:
                with self.log.open("a") as file:
                    file.write(ask.ask_id + "\n")
            broken = ask.candidate_id in self.never_mended or (ask.context.index == 1 and ask.attempt == 0)
            weight = 1.0 + ask.context.generation + 0.5 * ask.context.index
            text = BROKEN if broken else program(weight, component_of(ask.candidate_id))
            on_reply(Reply(ask.ask_id, text, "ok", "script", tokens_in=10, tokens_out=5, latency_s=0.0))


class KillingListener(Listener):
    """Ends its own process without warning when a moment comes."""

    def __init__(self, moment: str | None) -> None:
        self.moment = moment
        self.generation = 0

    def _at(self, moment: str) -> None:
        if moment == self.moment:
            os.kill(os.getpid(), signal.SIGKILL)

    def generation_started(self, generation: int, generations: int) -> None:
        """A new generation begins."""
        self.generation = generation
        if generation == 2:
            self._at("between_generations")

    def reply_arrived(self, reply: Reply) -> None:
        """A reply is stored."""
        self._at("first_reply")

    def judged(self, candidate) -> None:
        """A verdict is stored."""
        self._at("judged")

    def tick(self) -> None:
        """Trainings run."""
        if self.generation == 2:
            self._at("training")

    def run_ended(self, run_id: str, status: str, fitness: float | None) -> None:
        """A training has ended."""
        self._at("final" if run_id.startswith(("final", "human", "sparse")) else "trained")

    def say(self, text: str) -> None:
        """A line for people."""
        print(text, flush=True)


def slider_config(**changes) -> SearchConfig:
    """A search of the slider task that takes seconds."""
    values = {
        "task": str(SLIDER),
        "samples": 2,
        "generations": 2,
        "repairs": 1,
        "final_seeds": 1,
        "video": False,
        "designer": DesignerConfig(designer="evolution"),
    }
    return SearchConfig(**{**values, **changes})


def facts(folder: Path) -> dict:
    """What a finished search found, without times."""
    archive = Archive(folder / "search.db", create=False, read_only=True)
    timeless = ("wall_s", "steps_per_s", "time_s")
    found = {
        "candidates": [
            (c.candidate_id, str(c.status), c.source, c.parent_id, c.fitness, c.error, c.repairs)
            for c in archive.candidates()
        ],
        "runs": [
            (r.run_id, r.candidate_id, r.role, r.seed, r.status, r.fitness)
            + tuple((k, str(v)) for k, v in sorted(r.result.items()) if k not in timeless)
            for r in archive.runs()
        ],
        "replies": sorted((name, reply.text) for name, reply in archive.replies().items()),
    }
    archive.close()
    return found
