"""Everything a report shows, read from a search's folder: search.json, search.db and the runs' metrics and results.

The database is opened read-only and read in one transaction, so a report can be written while a search goes on, and a
report never changes a search. Of a long search only the candidates that are shown are read. Nothing is computed here
that is not in a file; `report_story` draws the conclusions. SQLite keeps no NaN (it stores NULL), so a NaN fitness is
taken from the run's result, where it is written out.

What it does not know: whether the process that runs a search is still alive. "running" means that no end was recorded.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from eureka.candidate import Candidate, Status
from eureka.report_counts import SHOWN, Choice, Counts, as_json, choose, count
from rl.record import METRICS, RESULT, read_json
from tasks.errors import UserError

EVENTS_READ = 300
"""Lines of the search's log that a page shows, the last."""
DONE_MARKER = "done"
"""File of the search folder that is written last."""
NONFINITE = {
    "nan": math.nan,
    "inf": math.inf,
    "infinity": math.inf,
    "-inf": -math.inf,
    "-infinity": -math.inf,
}
"""How records spell numbers that JSON cannot hold."""


@dataclass(frozen=True)
class Attempt:
    """One request for a candidate's program and what came back; `reply` is None while it is open."""

    ask_id: str
    attempt: int
    messages: tuple[tuple[str, str], ...]
    reply: dict[str, Any] | None


@dataclass(frozen=True)
class Run:
    """One training: of a candidate, of the final reward on a fresh seed, or of a baseline."""

    run_id: str
    role: str
    seed: int | None
    folder: Path
    status: str
    fitness: float | None
    fitness_std: float | None
    candidate_id: str | None = None
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def scored(self) -> bool:
        """Whether it ended with a finite fitness."""
        return self.fitness is not None and math.isfinite(self.fitness)


@dataclass(frozen=True)
class SearchRecord:
    """A search as its folder tells it.

    Attributes:
        folder: the search's folder.
        config: search.json, {} when it is not there yet.
        meta: key -> value of the database's meta table.
        finished: whether the done marker is there.
        candidates: those that have a line on the page, in the order of their ids.
        attempts: candidate_id -> its requests, first to last.
        runs: the trainings of these candidates and all others that the database knows.
        events: (time in Unix seconds, kind, text), the last `EVENTS_READ`, oldest first.
        updated_s: Unix time of the newest entry that was read, None for an empty search.
        counts: over all candidates.
        choice: which candidates have a line, and which are shown in full; only their prompts and replies are read.
        feedback: generation -> what a person said after it.
    """

    folder: Path
    config: Mapping[str, Any]
    meta: Mapping[str, Any]
    finished: bool
    candidates: tuple[Candidate, ...]
    attempts: Mapping[str, tuple[Attempt, ...]]
    runs: tuple[Run, ...]
    events: tuple[tuple[float, str, str], ...]
    updated_s: float | None
    counts: Counts
    choice: Choice
    feedback: Mapping[int, str] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether every candidate has a line."""
        return self.choice.listed is None

    def setting(self, *names: str, default: Any = None) -> Any:
        """The first of `names` with a value: in the meta table, else in search.json; nested tables included."""
        told = [*flatten(self.meta), *flatten(self.config)]
        for name in names:
            for key, value in told:
                if key.rsplit(".", 1)[-1] == name and value is not None:
                    return value
        return default

    def run_of(self, candidate_id: str) -> Run | None:
        """The training that tells most about a candidate: one that failed, else that of the first seed; of a candidate
        that did not train to the end, its last rung.

        Only a training that has ended is in the database; one that goes on is found by its folder.
        """
        own = self._by_candidate.get(("candidate", candidate_id), [])
        rungs = self._by_candidate.get(("rung", candidate_id), [])
        failed = [run for run in own or rungs if run.status != "ok"]
        if failed or own:
            return (failed or own)[0]
        places = [path.parent for path in (self.folder / "candidates" / candidate_id).glob(f"s*/{METRICS}")]
        if not places:
            return rungs[-1] if rungs else None
        # A later rung has the metrics of the one before too; the last one's folder has the seed alone as its name.
        place = max(places, key=lambda place: ("_" not in place.name, place.name))
        found = next((run for run in rungs if run.folder == place), None)
        run_id = f"{candidate_id}_{place.name}"
        return found or Run(run_id, "candidate", None, place, "training", None, None, candidate_id)

    @cached_property
    def _by_candidate(self) -> dict[tuple[str, str], list[Run]]:
        """Role and candidate -> its runs."""
        found: dict[tuple[str, str], list[Run]] = {}
        for role in ("candidate", "rung"):
            for run in self.runs_of_role(role):
                found.setdefault((role, run.candidate_id or ""), []).append(run)
        return found

    def runs_of_role(self, role: str) -> list[Run]:
        """The runs of "candidate", "rung", "final", "human" or "sparse", by seed."""
        return sorted((run for run in self.runs if run.role == role), key=lambda run: (run.seed or 0, run.run_id))


def flatten(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted name, value) of a nested table, in its order."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def number(value: Any) -> float | None:
    """A recorded number: "nan" becomes NaN, what is no number becomes None (never the other way round)."""
    if isinstance(value, str):
        return NONFINITE.get(value.strip().lower())
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value)


def _fitness(value: Any, result: Mapping[str, Any]) -> float | None:
    found, written = number(value), number(result.get("fitness"))
    return written if found is None and written is not None and math.isnan(written) else found


def read_search(folder: Path) -> SearchRecord:
    """Reads a search folder.

    Raises:
        UserError: no such folder, no search.db in it, or a file in it that cannot be read.
    """
    database = folder / "search.db"
    if not database.is_file():
        raise UserError(
            f"No search in '{folder}': expected a folder with a search.db, such as runs/<task>/<search-id>."
        )
    config = _read_config(folder / "search.json")
    try:
        with closing(sqlite3.connect(f"file:{quote(str(database.resolve()))}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("BEGIN")
            counts = count(connection)
            choice = choose(connection, counts.candidates)
            tables = _tables(connection, choice) | _conversations(connection, choice)
    except sqlite3.DatabaseError as error:
        raise UserError(f"Cannot read '{database}': {error}. Restore it from a copy, or start a new search.") from error
    try:
        return _record(folder, config, tables, counts, choice)
    except (KeyError, ValueError) as error:
        raise UserError(
            f"Cannot read '{database}': unexpected content ({error}). It is from another version, or damaged."
        ) from error


def _tables(connection: sqlite3.Connection, choice: Choice) -> dict[str, list[dict[str, Any]]]:
    """Rows of what is shown, but for the conversations."""
    candidates, runs = "SELECT * FROM candidates", "SELECT * FROM runs"
    shown: tuple[str, ...] = ()
    if choice.listed is not None:
        shown = (as_json(choice.listed),)
        candidates += f" WHERE candidate_id IN {SHOWN}"
        others = "SELECT * FROM runs WHERE role IN ('final', 'human', 'sparse')"
        runs += f" WHERE role IN ('candidate', 'rung') AND candidate_id IN {SHOWN} UNION ALL {others}"
    last = f"SELECT * FROM events ORDER BY id DESC LIMIT {EVENTS_READ}"
    asked = connection.execute("SELECT 1 FROM sqlite_master WHERE name='feedback'").fetchone()  # since version 3
    return {
        "meta": [dict(row) for row in connection.execute("SELECT * FROM meta WHERE key NOT GLOB 'generation_*_done'")],
        "candidates": [dict(row) for row in connection.execute(candidates, shown)],
        "runs": [dict(row) for row in connection.execute(runs, shown)],
        "events": [dict(row) for row in connection.execute(last)],
        "feedback": [dict(row) for row in connection.execute("SELECT * FROM feedback")] if asked else [],
    }


def _conversations(connection: sqlite3.Connection, choice: Choice) -> dict[str, list[dict[str, Any]]]:
    """Rows of asks and replies of what is shown; prompts and texts of those that are shown in full alone."""
    named = [as_json(choice.detailed)]
    only = ""
    if choice.listed is not None:
        named.append(as_json(choice.listed))
        only = " WHERE candidate_id IN (SELECT value FROM json_each(?2))"
    asks = f"""SELECT ask_id, candidate_id, attempt, created_s,
        IIF(candidate_id IN {SHOWN}, prompt_json, '[]') AS prompt_json FROM asks{only}"""
    replies = f"""SELECT replies.ask_id AS ask_id, IIF(candidate_id IN {SHOWN}, text, NULL) AS text, outcome, model,
        tokens_in, tokens_out, cost, latency_s, error, replies.created_s AS created_s
        FROM asks JOIN replies USING (ask_id){only}"""
    return {
        "asks": [dict(row) for row in connection.execute(asks, named)],
        "replies": [dict(row) for row in connection.execute(replies, named)],
    }


def _record(
    folder: Path, config: dict[str, Any], tables: dict[str, list[dict[str, Any]]], counts: Counts, choice: Choice
) -> SearchRecord:
    stamps = ("created_s", "updated_s", "time_s")
    times = [number(row.get(stamp)) for rows in tables.values() for row in rows for stamp in stamps]
    return SearchRecord(
        folder=folder,
        config=config,
        meta={row["key"]: json.loads(row["value"]) for row in tables["meta"]},
        finished=(folder / DONE_MARKER).exists(),
        candidates=tuple(sorted(map(_candidate, tables["candidates"]), key=lambda c: (c.generation, c.index))),
        attempts=_attempts(tables["asks"], tables["replies"]),
        runs=tuple(_run(folder, row) for row in tables["runs"]),
        events=tuple(
            (number(row["time_s"]) or 0.0, str(row["kind"]), str(row["text"]))
            for row in sorted(tables["events"], key=lambda row: row["id"])
        ),
        updated_s=max((time for time in times if time is not None), default=None),
        counts=counts,
        choice=choice,
        feedback={row["generation"]: row["text"] for row in tables["feedback"] if row["text"]},
    )


def _read_config(path: Path) -> dict[str, Any]:
    config = read_json(path) if path.is_file() else {}
    if not isinstance(config, dict):
        raise UserError(f"Cannot read '{path}': expected a JSON object, found {type(config).__name__}.")
    return config


def _json_object(text: str | None) -> dict[str, Any]:
    value = json.loads(text) if text else {}
    return value if isinstance(value, dict) else {}


def _candidate(row: dict[str, Any]) -> Candidate:
    result = _json_object(row["result_json"])
    return Candidate(
        candidate_id=row["candidate_id"],
        generation=row["generation"],
        index=row["idx"],
        parent_id=row["parent_id"],
        status=Status(row["status"]),
        source=row["source"],
        reward_sha256=row["sha256"],
        error=row["error"],
        stage=row["stage"],
        fitness=_fitness(row["fitness"], result),
        fitness_std=number(row["fitness_std"]),
        result=result or None,
        reflection=row["reflection"],
        repairs=row["repairs"] or 0,
        rung=row.get("rung") or 0,
        rung_fitness=_fitness(row.get("rung_fitness"), result) if row["status"] == Status.ELIMINATED else None,
    )


def _run(folder: Path, row: dict[str, Any]) -> Run:
    place = folder / str(row["folder"] or "")
    result = _json_object(row["result_json"]) or _read_result(place / RESULT)
    return Run(
        run_id=row["run_id"],
        role=row["role"],
        seed=row["seed"],
        folder=place,
        status=str(row["status"]),
        fitness=_fitness(row["fitness"], result),
        fitness_std=number(row["fitness_std"]),
        candidate_id=row["candidate_id"],
        result=result,
    )


def _read_result(path: Path) -> dict[str, Any]:
    """A result that is on disk and not yet in the database; {} when there is none. Results are written whole."""
    found = read_json(path) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


def _attempts(asks: list[dict[str, Any]], replies: list[dict[str, Any]]) -> dict[str, tuple[Attempt, ...]]:
    by_ask = {row["ask_id"]: row for row in replies}
    attempts: dict[str, list[Attempt]] = {}
    for row in sorted(asks, key=lambda row: (row["candidate_id"], row["attempt"])):
        found = Attempt(row["ask_id"], row["attempt"], _messages(row["prompt_json"]), by_ask.get(row["ask_id"]))
        attempts.setdefault(row["candidate_id"], []).append(found)
    return {key: tuple(value) for key, value in attempts.items()}


def _messages(text: str | None) -> tuple[tuple[str, str], ...]:
    """The conversation of an ask: a JSON list of {"role", "content"}, or an object that holds one as "messages"."""
    value = json.loads(text) if text else []
    if isinstance(value, dict):
        value = value.get("messages", [])
    return tuple((str(message.get("role", "")), str(message.get("content", ""))) for message in value)
