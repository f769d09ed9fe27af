"""What a search tells whoever watches it. The base class is silent; the command line draws progress with it."""

from __future__ import annotations

from pathlib import Path

from eureka.candidate import Candidate
from eureka.designers.base import Reply


class Listener:
    """Called in the search's own thread, in the order things happen."""

    def say(self, text: str) -> None:
        """One line for people."""

    def generation_started(self, generation: int, generations: int) -> None:
        """A generation begins; they count from 1."""

    def reply_arrived(self, reply: Reply) -> None:
        """A designer's answer is there and stored."""

    def judged(self, candidate: Candidate) -> None:
        """The gate has decided on a candidate, after its repairs."""

    def run_started(self, run_id: str, run_dir: Path, iterations: int, start_iteration: int = 0) -> None:
        """A training is queued, from one iteration to another; its metrics will appear in run_dir."""

    def run_ended(self, run_id: str, status: str, fitness: float | None) -> None:
        """A training has ended."""

    def generation_ended(self, generation: int, best: Candidate | None, improved: bool) -> None:
        """A generation is done. improved: whether the best held-out fitness so far rose in it."""

    def tick(self) -> None:
        """About twice a second while trainings run."""
