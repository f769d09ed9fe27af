"""What a report counts over all candidates of a search, and which of them it shows: by SQL, without reading programs.

A page costs the same after a hundred thousand candidates as after a thousand, up to sums that SQLite takes from its
indexes. What it does not know: what the rows mean; `report_data` reads those that are chosen here.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from eureka.archive import BEST_FIRST, FAILURES, SCORED

DETAILED = 200
"""Candidates that the page of a larger search shows in full: half of them the best, half the latest, and the best's
ancestors. Ten thousand prompts and programs make a page that no browser opens."""
LISTED = 500
"""Candidates that the page of a larger search has a line for, chosen alike. The others are counted."""
ANCESTORS = 100
"""Most ancestors of the best that are shown, the nearest."""


@dataclass(frozen=True)
class Generation:
    """How many candidates a generation has by status, and its best; None where none has a fitness."""

    number: int
    statuses: Mapping[str, int]
    best_id: str | None
    fitness: float | None


@dataclass(frozen=True)
class Counts:
    """Of all candidates of a search, shown or not.

    Attributes:
        candidates: how many there are.
        generations: those that were begun, first to last.
        failures: (status, stage) -> how many failed so.
        asks: how many requests were made.
        replies: a row for each outcome and model: outcome, model, number, tokens_in, tokens_out, cost, latency_s.
    """

    candidates: int
    generations: tuple[Generation, ...]
    failures: Mapping[tuple[str, str | None], int]
    asks: int
    replies: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Choice:
    """Which candidates a page shows, by ids.

    Attributes:
        detailed: in full.
        listed: with a line at least; None for all.
        whole_from: the first generation all of whose candidates are listed since they are the latest.
    """

    detailed: frozenset[str]
    listed: frozenset[str] | None
    whole_from: int


def count(connection: sqlite3.Connection) -> Counts:
    """The counts of a search."""
    statuses: dict[int, dict[str, int]] = {}
    for number, status, many in connection.execute(
        "SELECT generation, status, COUNT(*) FROM candidates GROUP BY generation, status"
    ):
        statuses.setdefault(number, {})[status] = many
    best = {number: (name, fitness) for number, name, fitness in connection.execute(_BEST_OF_EACH)}
    failures = connection.execute(f"SELECT status, stage, COUNT(*) FROM candidates WHERE {FAILURES} GROUP BY 1, 2")
    return Counts(
        candidates=sum(sum(each.values()) for each in statuses.values()),
        generations=tuple(
            Generation(number, statuses[number], *best.get(number, (None, None))) for number in sorted(statuses)
        ),
        failures={(status, stage): many for status, stage, many in failures},
        asks=connection.execute("SELECT COUNT(*) FROM asks").fetchone()[0],
        replies=tuple(dict(row) for row in connection.execute(_REPLIES)),
    )


# A seek for each generation: a window over all candidates would sort them.
_BEST_OF_EACH = f"""
SELECT best.generation, best.candidate_id, best.fitness
FROM (SELECT DISTINCT generation AS number FROM candidates) JOIN candidates AS best ON best.rowid = (
    SELECT rowid FROM candidates WHERE generation = number AND {SCORED} ORDER BY fitness DESC, idx LIMIT 1)
"""
_REPLIES = """
SELECT outcome, model, COUNT(*) AS number, SUM(tokens_in) AS tokens_in, SUM(tokens_out) AS tokens_out,
    SUM(cost) AS cost, SUM(latency_s) AS latency_s
FROM replies GROUP BY outcome, model
"""


def choose(connection: sqlite3.Connection, candidates: int) -> Choice:
    """What is shown of a search with so many candidates."""
    if candidates <= DETAILED:
        return Choice(frozenset(_names(connection, "")), None, 0)
    detailed = _outstanding(connection, DETAILED)
    if candidates <= LISTED:
        return Choice(detailed, None, 0)
    parents = f"SELECT DISTINCT parent_id FROM candidates WHERE parent_id IS NOT NULL AND candidate_id IN {SHOWN}"
    wanted = (as_json(detailed),)
    listed = _outstanding(connection, LISTED) | detailed | {name for (name,) in connection.execute(parents, wanted)}
    before_them = f"SELECT generation FROM candidates {_LATEST} LIMIT 1 OFFSET {LISTED // 2}"
    return Choice(detailed, listed, connection.execute(before_them).fetchone()[0] + 1)


SHOWN = "(SELECT value FROM json_each(?1))"
"""Ids, given by `as_json`. No function of Python's: an interrupt in it would come back as an error of the database."""
_LATEST = "ORDER BY generation DESC, idx DESC"


def as_json(names: Iterable[str]) -> str:
    """Ids as one value of a statement."""
    return json.dumps(sorted(names))


def _outstanding(connection: sqlite3.Connection, many: int) -> frozenset[str]:
    """The best, the latest, and the ancestors of the best of all."""
    best = _names(connection, f"WHERE {SCORED} ORDER BY {BEST_FIRST} LIMIT {many // 2}")
    found = {*best, *_names(connection, f"{_LATEST} LIMIT {many // 2}")}
    ancestor: str | None = best[0] if best else None
    for _ in range(ANCESTORS):  # an archive that is damaged may hold a circle
        row = connection.execute("SELECT parent_id FROM candidates WHERE candidate_id=?", (ancestor,)).fetchone()
        ancestor = None if row is None else row[0]
        if ancestor is None:
            break
        found.add(ancestor)
    return frozenset(found)


def _names(connection: sqlite3.Connection, clause: str) -> list[str]:
    return [name for (name,) in connection.execute(f"SELECT candidate_id FROM candidates {clause}")]
