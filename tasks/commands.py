"""Commands of one body in numbers and in words: what an expert sees, and what a person or a planner says.

A `CommandSet` is a fixed list of commands. Each has a vector of numbers, which an expert observes, and phrases. Some
phrases are for training; the held-out ones are only ever used to test whether words are understood that were never
trained on. Knows nothing of simulation; `tasks.commanded` draws commands and measures whether they were obeyed.

Axes: N worlds, C commands, V numbers of a command.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.errors import UserError, did_you_mean

MIN_WORDINGS = 6
"""Phrases of a command for training, at least."""
MIN_HELD_OUT = 2
"""Phrases of a command for tests alone, at least."""


@dataclass(frozen=True)
class Command:
    """One thing that a body can be told to do."""

    name: str
    """Short, as in "turn left"; what tables print."""
    values: tuple[float, ...]
    """V numbers: what the expert sees. The task says what they are, and their units."""
    wordings: tuple[str, ...]
    """Phrases for training."""
    held_out: tuple[str, ...]
    """Phrases that are never trained on, in other words that a person still understands."""

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise UserError("a command has no name; give it one, such as 'turn left'.")
        if not self.values or not all(math.isfinite(value) for value in self.values):
            raise UserError(
                f"command '{self.name}': its values are {self.values}; expected finite numbers, at least one."
            )
        for kind, phrases, least in (
            ("wordings", self.wordings, MIN_WORDINGS),
            ("held_out", self.held_out, MIN_HELD_OUT),
        ):
            if isinstance(phrases, str):  # a forgotten comma makes letters of a phrase
                raise UserError(f"command '{self.name}': {kind} is one text; expected a tuple of phrases.")
            if len(phrases) < least:
                raise UserError(f"command '{self.name}' has {len(phrases)} {kind}; expected at least {least}.")
            if not all(phrase.strip() for phrase in phrases):
                raise UserError(f"command '{self.name}': one of its {kind} is empty; write the phrase or take it out.")


class CommandSet(Sequence[Command]):
    """Commands of one body, in order; their places are the indices 0 to C - 1.

    Raises:
        UserError: fewer than two commands, a name or a phrase twice, or values of different lengths.
    """

    def __init__(self, commands: Sequence[Command]) -> None:
        self._commands = tuple(commands)
        if len(self._commands) < 2:
            raise UserError(f"a command set needs two commands or more, got {len(self._commands)}; add some.")
        self._place_of_name = {command.name: place for place, command in enumerate(self._commands)}
        if len(self._place_of_name) != len(self._commands):
            repeated = sorted({name for name in self.names if self.names.count(name) > 1})
            raise UserError(f"names of commands must be unique; repeated: {', '.join(repeated)}.")
        first = self._commands[0]
        for command in self._commands:
            if len(command.values) != len(first.values):
                raise UserError(
                    f"command '{command.name}' has {len(command.values)} values, '{first.name}' "
                    f"{len(first.values)}; expected as many for all."
                )
        self._place_of_phrase = self._places()

    def _places(self) -> dict[str, int]:
        """Plain phrase -> place of its command; names count as phrases too."""
        places: dict[str, int] = {}
        for place, command in enumerate(self._commands):
            for phrase in map(_plain, (*command.wordings, *command.held_out)):
                if phrase in places:
                    raise UserError(
                        f"the phrase '{phrase}' stands twice, in '{self._commands[places[phrase]].name}' and in "
                        f"'{command.name}'; expected each once in a command set."
                    )
                places[phrase] = place
        for place, command in enumerate(self._commands):
            other = places.setdefault(_plain(command.name), place)
            if other != place:
                raise UserError(
                    f"the name '{command.name}' is also a phrase of '{self._commands[other].name}'; change one of them."
                )
        return places

    @property
    def names(self) -> tuple[str, ...]:
        """Names in order."""
        return tuple(command.name for command in self._commands)

    @property
    def values(self) -> Tensor:
        """What the expert sees of each command, (C, V) float32."""
        return torch.tensor([command.values for command in self._commands])

    def __len__(self) -> int:
        return len(self._commands)

    def __iter__(self) -> Iterator[Command]:
        return iter(self._commands)

    def __getitem__(self, key):  # type: ignore[override]
        """A command by its place, or by its name. Raises UserError on an unknown name."""
        return self._commands[self.index(key) if isinstance(key, str) else key]

    def index(self, name: str) -> int:  # type: ignore[override]
        """The place of a command. Raises UserError on an unknown name, with "did you mean"."""
        if name not in self._place_of_name:
            raise UserError(
                f"there is no command '{name}'; expected one of {', '.join(self.names)}."
                f"{did_you_mean(name, self._place_of_name)}"
            )
        return self._place_of_name[name]

    def phrases(self, held_out: bool = False) -> list[tuple[str, int]]:
        """Every phrase for training, or every held-out one, with the place of its command."""
        return [
            (phrase, place)
            for place, command in enumerate(self._commands)
            for phrase in (command.held_out if held_out else command.wordings)
        ]

    def say(self, command: Tensor, wording: Tensor, held_out: bool = False) -> list[str]:
        """Commands in words.

        Args:
            command: (N,) whole numbers, places of commands.
            wording: (N,) whole numbers of at least 0; number i takes phrase i modulo the number of phrases.
            held_out: Whether the phrases are those never trained on.
        """
        pools = [one.held_out if held_out else one.wordings for one in self._commands]
        pairs = zip(command.tolist(), wording.tolist(), strict=True)
        return [pools[place][number % len(pools[place])] for place, number in pairs]

    def understand(self, phrase: str) -> int:
        """The place of the command that a phrase says: one of all phrases and names; capitals, blanks and a full stop
        at the end do not count.

        Raises:
            UserError: no such phrase; the line names the nearest one.
        """
        found = self._place_of_phrase.get(_plain(phrase))
        if found is None:
            hint = did_you_mean(_plain(phrase), self._place_of_phrase)
            raise UserError(
                f"no command is called '{phrase}'; expected a phrase of {', '.join(repr(name) for name in self.names)}."
                f"{hint}"
            )
        return found


def _plain(phrase: str) -> str:
    return " ".join(phrase.split()).rstrip(".").casefold()
