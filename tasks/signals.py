"""The signal table: what a task publishes about its worlds, and all that a reward may see.

One table makes the prompt, the checker's allowed names and the tensors a reward receives. It does not know
how the tensors are computed; `tasks.task.Task.signals` does.

Axes: N worlds. Every tensor is (N, dims), float32, also when dims is 1.
"""

from __future__ import annotations

import keyword
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from tasks.errors import UserError, did_you_mean

KINDS: tuple[str, ...] = (
    "position",
    "orientation",
    "direction",
    "linear_velocity",
    "angular_velocity",
    "joint_pos",
    "joint_vel",
    "distance",
    "contact",
    "force",
    "action",
    "command",
    "other",
)

Signals = dict[str, torch.Tensor]
"""Signal name -> (N, dims) float32 tensor."""


@dataclass(frozen=True)
class Signal:
    """One named quantity of every world."""

    name: str
    """Python identifier; the name a reward's argument has."""
    dims: int
    """Width: the tensor is (N, dims)."""
    unit: str
    """SI unit, "rad", or "1" for a number without unit."""
    frame: str
    """Frame of reference: "world", "body", "joint", or "-"."""
    kind: str
    """One of `KINDS`."""
    doc: str
    """One line for the reader of the table, human or model."""

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or keyword.iskeyword(self.name) or not self.name.isascii():
            raise UserError(f"signal name {self.name!r} is not an ASCII Python identifier; rename the signal.")
        if self.dims < 1:
            raise UserError(f"signal '{self.name}' has dims={self.dims}; expected at least 1.")
        if self.kind not in KINDS:
            hint = did_you_mean(self.kind, KINDS)
            raise UserError(f"signal '{self.name}' has kind '{self.kind}'; expected one of {', '.join(KINDS)}.{hint}")


class SignalTable(Sequence[Signal]):
    """An ordered table of signals with unique names.

    Raises:
        UserError: on a repeated name or an empty table.
    """

    def __init__(self, signals: Iterable[Signal]) -> None:
        self._signals = tuple(signals)
        self._by_name = {signal.name: signal for signal in self._signals}
        if not self._signals:
            raise UserError("the signal table is empty; a reward would have nothing to look at.")
        if len(self._by_name) != len(self._signals):
            repeated = sorted({s.name for s in self._signals if self.names.count(s.name) > 1})
            raise UserError(f"signal names must be unique; repeated: {', '.join(repeated)}.")

    @property
    def names(self) -> tuple[str, ...]:
        """Names in table order."""
        return tuple(signal.name for signal in self._signals)

    def __len__(self) -> int:
        return len(self._signals)

    def __iter__(self) -> Iterator[Signal]:
        return iter(self._signals)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __getitem__(self, key):  # type: ignore[override]
        """A signal by name, or by place."""
        if not isinstance(key, str):
            return self._signals[key]
        if key not in self._by_name:
            raise UserError(f"there is no signal '{key}'.{did_you_mean(key, self._by_name)}")
        return self._by_name[key]

    def describe(self) -> str:
        """The table as aligned text, one line a signal: name, shape, unit, frame, kind, meaning."""
        rows = [("name", "shape", "unit", "frame", "kind", "meaning")]
        rows += [(s.name, f"(N, {s.dims})", s.unit, s.frame, s.kind, s.doc) for s in self._signals]
        return aligned(rows)

    def validate(self, signals: Signals, num_envs: int) -> None:
        """Check that tensors are those the table promises.

        Raises:
            UserError: names, shape or dtype differ from the table.
        """
        missing = [name for name in self.names if name not in signals]
        extra = [name for name in signals if name not in self._by_name]
        if missing or extra:
            raise UserError(
                f"Task.signals() and the signal table differ: missing {missing or 'none'}, "
                f"not in the table {extra or 'none'}."
            )
        for signal in self._signals:
            tensor = signals[signal.name]
            if tuple(tensor.shape) != (num_envs, signal.dims):
                raise UserError(
                    f"signal '{signal.name}' has shape {tuple(tensor.shape)}; "
                    f"the table says ({num_envs}, {signal.dims})."
                )
            if tensor.dtype != torch.float32:
                raise UserError(f"signal '{signal.name}' has dtype {tensor.dtype}; expected torch.float32.")


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equal length as text, every column but the last as wide as its widest cell."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    lines = ["  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[-1]]) for row in rows]
    return "\n".join(line.rstrip() for line in lines)
