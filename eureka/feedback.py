"""What a person says of the best policy between two generations, and the reward a person starts a search from.

`--feedback`: after each generation but the last the person is shown where the best policy's video is and types a
sentence, on the terminal or into `feedback/gNN.txt`. It is stored before it is used, so it is asked for once. An empty
line says nothing. `--init-reward`: the program of a person is candidate g00_c00; it passes the gate, is trained like
any other, and is the first parent.

What was typed is foreign text in a prompt, fenced and cut (`eureka.prompts`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TextIO

from eureka.archive import Run
from eureka.best import VIDEO_SEED
from eureka.candidate import Candidate, candidate_id
from eureka.designers.base import Ask, Reply
from eureka.prompts import FEEDBACK_CAP
from rl.checkpoint import load_policy
from rl.video import record_video
from tasks.errors import UserError
from tasks.task import Task

FOLDER = "feedback"
GIVEN = candidate_id(0, 0)
"""The candidate whose program a person gave."""


class Person(Protocol):
    """Who is asked after a generation."""

    def ask(self, generation: int, shown: str, file: Path) -> str:
        """What the person says; "" for nothing.

        Args:
            generation: The one that has ended.
            shown: What there is to see, in one line.
            file: Where the sentence may be written instead.

        Raises:
            UserError: there is nobody to ask now.
        """
        ...


class AtTerminal:
    """Asks on the terminal; takes a file that is there already, which is the only way without one.

    Args:
        terminal: Where the sentence is typed; the standard input when not given.
        say: Takes a line for the person.
    """

    def __init__(self, terminal: TextIO | None = None, say: Callable[[str], None] = print) -> None:
        self._terminal = terminal if terminal is not None else sys.stdin
        self._say = say

    def ask(self, generation: int, shown: str, file: Path) -> str:
        """See `Person`."""
        if file.is_file():
            try:
                return file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"{file} cannot be read ({error}); save it as UTF-8 text and resume.") from None
        if not self._terminal.isatty():
            file.parent.mkdir(parents=True, exist_ok=True)
            raise UserError(
                f"no terminal to ask for feedback on {shown}: write a sentence into {file}, or leave the file empty, "
                "and resume."
            )
        self._say(f"{shown}\nWhat should the next rewards do better? One line; empty for nothing:")
        line = self._terminal.readline()
        if not line:
            raise UserError(f"the terminal was closed before there was feedback on {shown}; resume to be asked again.")
        return line


class Recorded:
    """Says what was said in a recorded search.

    Args:
        said: Generation -> sentence.
    """

    def __init__(self, said: Mapping[int, str]) -> None:
        self._said = said

    def ask(self, generation: int, shown: str, file: Path) -> str:
        """See `Person`."""
        return self._said.get(generation, "")


def place(folder: Path, generation: int) -> Path:
    """Where a person may write on a generation instead of on a terminal."""
    return folder / FOLDER / f"g{generation:02d}.txt"


def clean(text: str) -> str:
    """A sentence as it is stored: without blanks around it and unprintable characters, cut to what a prompt takes."""
    plain = "".join(c for c in text if c.isprintable() or c == "\n")
    return plain.strip()[:FEEDBACK_CAP]


def show(
    folder: Path,
    task: Task,
    best: Candidate,
    runs: Sequence[Run],
    video: bool,
    generation: int,
    say: Callable[[str], None],
) -> str:
    """Film the best policy so far, and say in one line where it is.

    Args:
        folder: The search folder; the video goes to `feedback/gNN.mp4`.
        task: Its task.
        best: The best candidate.
        runs: Its own trainings that ended well, best first.
        video: Whether to film.
        generation: The one that has ended.
        say: Takes a line where there is no renderer.
    """
    told = f"{best.candidate_id}, fitness {best.fitness:.4g} {task.fitness_unit}"
    run = next((run for run in runs if run.result.get("checkpoint")), None)
    if run is None:
        return told
    path = place(folder, generation).with_suffix(".mp4")
    if video and not path.exists():
        policy = load_policy(folder / run.folder / run.result["checkpoint"], task)
        record_video(task, policy, path, seed=VIDEO_SEED, say=say)
    return f"{told}, {path if path.exists() else folder / run.folder}"


class Giver:
    """A designer that hands over the one program which a person has written.

    Args:
        program: Its text.
    """

    name = "init-reward"

    def __init__(self, program: str) -> None:
        self._program = program

    def check(self) -> None:
        """Needs nothing."""

    def answer(self, asks: Sequence[Ask], on_reply: Callable[[Reply], None]) -> None:
        """The program, as a reply that holds nothing else."""
        for ask in asks:
            on_reply(Reply(ask.ask_id, self._program, "ok", model=self.name, tokens_in=0, tokens_out=0, latency_s=0.0))
