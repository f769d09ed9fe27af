"""A planner that reads a file: one line a subtask, a duration in seconds and an instruction.

    # seconds  instruction
    2.0  turn left
    3.5  run forward
    -    stand still

"-" instead of a duration: until the end of the run; only the last line may say so. Empty lines and what follows # do
not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.planner import Picture, PlannerDone, Subtask, Turn, Vocabulary
from tasks.errors import UserError


def read_script(path: Path, vocabulary: Vocabulary) -> tuple[Subtask, ...]:
    """The subtasks of a file.

    Raises:
        UserError: no such file, nothing in it, or a line that is none; the line names it.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no UTF-8 text"
        raise UserError(f"cannot read the script {path}: {reason}.") from None
    found: list[Subtask] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split(maxsplit=1)
        if not words:
            continue
        try:
            if found and found[-1].until is None:
                raise UserError("a line follows one that holds until the end.")
            found.append(parse_line(words, vocabulary))
        except UserError as error:
            raise UserError(f"{path}, line {number}: {error}") from None
    if not found:
        raise UserError(f"{path} holds no subtask; expected lines such as '2.5 run forward'.")
    return tuple(found)


def parse_line(words: Sequence[str], vocabulary: Vocabulary) -> Subtask:
    """A subtask from a duration, or "-", and an instruction. Raises UserError."""
    if len(words) < 2:
        raise UserError(f"expected seconds and an instruction, such as '2.5 run forward', got {' '.join(words)!r}.")
    seconds, instruction = words
    try:
        until = None if seconds == "-" else float(seconds)
    except ValueError:
        raise UserError(f"a line begins with {seconds!r}; expected a number of seconds, or '-'.") from None
    return Subtask(vocabulary.checked(instruction), until)


class ScriptPlanner:
    """Says one subtask after the other."""

    name = "script"
    wants_images = False

    def __init__(self, subtasks: Sequence[Subtask]) -> None:
        self._subtasks = tuple(subtasks)
        self._next = 0

    def plan(self, images: Sequence[Picture], goal: str, history: Sequence[Turn]) -> Subtask:
        """The next one; the last one over and over if it has no end."""
        if self._next < len(self._subtasks):
            self._next += 1
        elif self._subtasks[-1].until is not None:
            raise PlannerDone("the script has ended")
        return self._subtasks[self._next - 1]

    def facts(self) -> Mapping[str, Any]:
        """How far it came."""
        return {"lines": len(self._subtasks), "said": self._next}

    def close(self) -> None:
        """Holds nothing."""
