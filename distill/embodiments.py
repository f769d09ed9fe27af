"""The bodies that a head drives: sizes, horizons and scales of each, known by name.

An embodiment is known by its name alone, in the weights (`adapters.<name>`), in files and in mixed batches, where its
number is its place in the table. The table only grows: two bodies cannot share a place, and none is ever renumbered.

Knows nothing of networks. How often a body is controlled and how many actions of a chunk it carries out before it plans
again are its own properties: a walking body may run half a chunk blind, a hovering one may not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from distill.normalize import MODES, Statistics, statistics_from_json, statistics_to_json
from rl.config import check_types, choice, complete_fields, need
from tasks.errors import UserError, did_you_mean

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class Embodiment:
    """One body as the head sees it."""

    name: str
    """Its name: small letters, digits, dashes, underscores."""
    state_size: int
    """Numbers of one observation of its state."""
    action_size: int
    """Numbers of one action."""
    control_dt_s: float
    """Seconds from one action to the next."""
    horizon: int
    """Actions that a chunk predicts."""
    execute: int
    """Actions of a chunk that are carried out before the next chunk takes over."""
    history: int
    """Observations that the head is given, the present one included."""
    state_normalization: str
    """How states are scaled: quantile, min_max or mean_std."""
    action_normalization: str
    """How actions are scaled."""
    state_statistics: Statistics
    """Statistics of the states of its demonstrations."""
    action_statistics: Statistics
    """Statistics of the actions of its demonstrations."""

    def __post_init__(self) -> None:
        where = f"embodiment '{self.name}': "
        check_types(self, where)
        if not _NAME.fullmatch(self.name):
            raise UserError(
                f"embodiment name {self.name!r}: expected small letters, digits, '-' and '_', a letter or digit first."
            )
        need(self, where, "a whole number of at least 1", lambda v: v >= 1,
             "state_size", "action_size", "horizon", "execute", "history")  # fmt: skip
        need(self, where, "a number of seconds above 0", lambda v: v > 0, "control_dt_s")
        if self.execute > self.horizon:
            raise UserError(
                f"{where}execute is {self.execute}, more than the {self.horizon} actions of a chunk: lower execute, or "
                "raise horizon."
            )
        for kind in ("state", "action"):
            choice(f"{where}{kind}_normalization", getattr(self, f"{kind}_normalization"), MODES)
            size, columns = getattr(self, f"{kind}_size"), getattr(self, f"{kind}_statistics").size
            if size != columns:
                raise UserError(
                    f"{where}{kind}_size is {size}, but {kind}_statistics has {columns} columns: not the same data."
                )


@dataclass(frozen=True)
class EmbodimentTable:
    """Embodiments in the order in which they came; an embodiment's place never changes."""

    embodiments: tuple[Embodiment, ...] = ()
    """The embodiments; the place in it is the number that mixed batches use."""

    def __post_init__(self) -> None:
        names = self.names
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"embodiment '{name}' comes twice: each needs a name of its own.")

    @property
    def names(self) -> tuple[str, ...]:
        """All names, by place."""
        return tuple(embodiment.name for embodiment in self.embodiments)

    def __len__(self) -> int:
        return len(self.embodiments)

    def __iter__(self) -> Iterator[Embodiment]:
        return iter(self.embodiments)

    def __getitem__(self, name: str) -> Embodiment:
        return self.embodiments[self.place(name)]

    def place(self, name: str) -> int:
        """The number of an embodiment. Raises UserError for a name that is not there."""
        if name not in self.names:
            known = ", ".join(self.names) or "none"
            raise UserError(f"unknown embodiment '{name}'; known: {known}.{did_you_mean(name, self.names)}")
        return self.names.index(name)

    def with_new(self, embodiment: Embodiment) -> EmbodimentTable:
        """A table with one more. Raises UserError if its name is taken."""
        if embodiment.name in self.names:
            raise UserError(f"embodiment '{embodiment.name}' is there already: a new one needs a name of its own.")
        return EmbodimentTable((*self.embodiments, embodiment))


def table_to_json(table: EmbodimentTable) -> list[dict[str, Any]]:
    """Plain data for `json.dumps`."""
    rows = []
    for embodiment in table:
        row = {name: getattr(embodiment, name) for name in Embodiment.__dataclass_fields__}
        row["state_statistics"] = statistics_to_json(embodiment.state_statistics)
        row["action_statistics"] = statistics_to_json(embodiment.action_statistics)
        rows.append(row)
    return rows


def table_from_json(data: Any) -> EmbodimentTable:
    """The inverse of `table_to_json`. Raises UserError for unknown, missing or impossible fields."""
    if not isinstance(data, list):
        raise UserError(f"embodiments: expected a list, got {type(data).__name__}.")
    rows = []
    for number, row in enumerate(data):
        where = f"embodiments[{number}]"
        values = complete_fields(row, Embodiment, where)
        for kind in ("state_statistics", "action_statistics"):
            values[kind] = statistics_from_json(values[kind], f"{where}.{kind}")
        rows.append(Embodiment(**values))
    return EmbodimentTable(tuple(rows))
