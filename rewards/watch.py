"""What a trial sees of a program while it runs: every operator, with the program's line.

Runs in the trial's child process; see `rewards.trial`. Axes: N worlds.
"""

import functools
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rewards.expressions import Violation
from rewards.result import storage_of
from rewards.trace import PROGRAM_NAME
from tasks.signals import Signals

MAX_NUMBERS_PER_WORLD = 65_536
"""Largest intermediate result per world: 1 GB at 4096 worlds."""
CHANGED_HINT = "make new tensors: y = x + 1 instead of x += 1, and x.clone() before writing into x"


class Watch(TorchDispatchMode):
    """Sees every operator a program runs and notes those that a trainer cannot have, with the program's
    line."""

    def __init__(self, worlds: int, square: bool, given: Signals) -> None:
        super().__init__()
        self.violations: list[Violation] = []
        self._given = {storage_of(tensor): name for name, tensor in given.items()}
        self._worlds = worlds
        self._square = square  # whether (N, N) can be told from a shape that is so by chance

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        what, written = _known_of(func)
        if what == "random":
            operator = func.name().removeprefix("aten::")
            self._note("T210", f"'{operator}' is random.", "remove the random term")
        elif what == "value":
            hint = "use torch.where for decisions and torch.stack to join tensors"
            self._note("T210", "a tensor is turned into a Python number or truth value.", hint)
        elif what == "shape" and (func.name() != "aten::index.Tensor" or _by_mask(args)):
            hint = "use torch.where(mask, a, b) instead of selecting worlds"
            self._note("T210", "the shape of a result depends on values (a mask selects rows).", hint)
        for value in (args[place] for place in written if place < len(args)):
            name = self._given.get(storage_of(value)) if isinstance(value, torch.Tensor) else None
            if name is not None:
                self._note("T208", changed(name), CHANGED_HINT)
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor):
                self._size(tensor)
        return result

    def _size(self, tensor: torch.Tensor) -> None:
        shape = tuple(tensor.shape)
        if self._square and shape.count(self._worlds) > 1:
            hint = "a (N,) and a (N, 1) tensor were combined: take columns by x[:, 0]"
            self._note("T211", f"an intermediate result has one number for every PAIR of worlds, {shape}.", hint)
        elif tensor.numel() > MAX_NUMBERS_PER_WORLD * self._worlds:
            message = f"an intermediate result has {tensor.numel()} numbers, shape {shape}."
            self._note("T211", message, f"stay below {MAX_NUMBERS_PER_WORLD} numbers per world")

    def _note(self, code: str, message: str, hint: str) -> None:
        frame: Any = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename != PROGRAM_NAME:
            frame = frame.f_back
        self.violations.append(Violation(frame.f_lineno if frame else 0, code, message, hint))


@functools.cache
def _known_of(func: Any) -> tuple[str, tuple[int, ...]]:
    """Whether an operator is "random", gives a Python "value" or a "shape" that depends on values, else ""; and the
    places of the arguments that it writes to."""
    kinds = {
        torch.Tag.nondeterministic_seeded: "random",
        torch.Tag.data_dependent_output: "value",
        torch.Tag.dynamic_output_shape: "shape",
    }
    what = next((word for tag, word in kinds.items() if tag in func.tags), "")
    infos = [parameter.alias_info for parameter in func._schema.arguments]
    return what, tuple(place for place, info in enumerate(infos) if info is not None and info.is_write)


def changed(name: str) -> str:
    """What is said of an argument that a program wrote to."""
    return f"the program changed its argument '{name}' in place."


def _by_mask(args: Sequence[Any]) -> bool:
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
