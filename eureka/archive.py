"""Every candidate ever made, failures included, in one SQLite file.

One writer, the search; anyone may read while it runs (write-ahead log). Each method that writes is one transaction
with `synchronous=FULL`: what it acknowledged survives a kill at any moment. Rows are matched by ids, never by order.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eureka.candidate import Candidate, Status
from eureka.database import Database
from eureka.designers.base import Ask, Exchange, Reply
from eureka.disk import Patience

EXCHANGES_LIMIT = 256 * 2**20
"""Bytes of raw answers one search keeps whole; of further ones the first `EXCHANGE_HEAD` bytes."""
EXCHANGE_HEAD = 4096
HISTORY = 200
"""Candidates that later generations are told of one by one; of a longer search half are the best, and half the newest
of those that failed or were stopped early."""
SCORED = f"status = '{Status.TRAINED}' AND fitness > -9e999 AND fitness < 9e999"
"""As `Candidate.scored` has it; 9e999 is SQLite's infinity."""
BEST_FIRST = "fitness DESC, generation, idx"
"""The order of `eureka.candidate.ranked`."""
FAILURES = f"status IN ('{Status.REFUSED}', '{Status.NO_REPLY}', '{Status.FAILED}')"
_UNRANKED = f"({FAILURES} OR status = '{Status.ELIMINATED}')"


@dataclass(frozen=True)
class History:
    """What later generations are told of earlier ones; its size does not depend on how many there were."""

    candidates: tuple[Candidate, ...]
    """All of a short search, else the best and the newest of those that failed or were stopped early; in order of
    generation and index."""
    further: int
    """Scored, failed and stopped ones that are not among them."""


_LAST = 2**62  # above every generation


@dataclass(frozen=True)
class Run:
    """One finished training of a candidate ("candidate"), or of a final comparison ("final", "human", "sparse")."""

    run_id: str
    candidate_id: str | None
    role: str
    seed: int
    folder: str
    """Relative to the search folder."""
    status: str
    fitness: float | None
    fitness_std: float | None
    result: dict[str, Any]


class Archive:
    """The database of one search.

    Args:
        path: `search.db`; made when it does not exist and `create` is true.
        create: Whether a missing database is made. Resuming passes False.
        read_only: Only look: an older schema version is read as it is, and nothing can be written.
        patience: Waits where the disk is full; without it a full disk is an error.

    Raises:
        UserError: it is missing, no database, damaged, or of a newer schema version. Nothing is changed then.
    """

    def __init__(
        self, path: Path, create: bool = True, read_only: bool = False, patience: Patience | None = None
    ) -> None:
        self.path = path
        self._db = Database(path, create, read_only, patience)
        self._exchange_bytes: int | None = None  # kept of all exchanges; counted once, there is one writer

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _write(self, statement: str, values: object) -> None:
        self._db.write(lambda db: db.execute(statement, values))  # pyright: ignore[reportArgumentType]

    # -- meta and events

    def set_meta(self, key: str, value: object) -> None:
        """Store a JSON value under a key."""
        self.note({key: value})

    def note(self, facts: Mapping[str, object], kind: str | None = None, text: str = "") -> None:
        """Store JSON values under their keys and, with `kind`, a line in the search's log: all of it or nothing."""

        def write(db: sqlite3.Connection) -> None:
            rows = [(key, json.dumps(value)) for key, value in facts.items()]
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)
            if kind is not None:
                db.execute("INSERT INTO events (time_s, kind, text) VALUES (?, ?, ?)", (time.time(), kind, text))

        self._db.write(write)

    def meta(self, key: str, default: Any = None) -> Any:
        """The value of a key, or default."""
        row = self._db.execute("SELECT value FROM meta WHERE key=?", (key,)).fetchone()
        return default if row is None else json.loads(row[0])

    def add_event(self, kind: str, text: str) -> None:
        """Append a line to the search's log."""
        self.note({}, kind, text)

    def events(self) -> list[sqlite3.Row]:
        """All log lines: rows with id, time_s, kind, text."""
        return self._db.execute("SELECT * FROM events ORDER BY id").fetchall()

    # -- asks and replies

    def add_asks(self, asks: Sequence[Ask]) -> None:
        """Store prompts before they are sent; those stored already are left alone."""
        rows = [
            (
                ask.ask_id,
                ask.candidate_id,
                ask.context.generation,
                ask.attempt,
                json.dumps([{"role": m.role, "content": m.content} for m in ask.messages]),
                time.time(),
            )
            for ask in asks
        ]
        self._db.write(lambda db: _many(db, "INSERT OR IGNORE INTO asks VALUES (?, ?, ?, ?, ?, ?)", rows))

    def add_reply(self, reply: Reply) -> None:
        """Store a raw reply. A second reply to the same ask is an error of the program (sqlite3.IntegrityError)."""
        row = (
            reply.ask_id,
            reply.text,
            reply.outcome,
            reply.model,
            reply.tokens_in,
            reply.tokens_out,
            reply.cost,
            reply.latency_s,
            reply.error,
            time.time(),
        )
        self._write("INSERT INTO replies VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def add_exchange(self, exchange: Exchange) -> None:
        """Store what one request brought, before it is read."""
        if self._exchange_bytes is None:
            total = "SELECT COALESCE(SUM(LENGTH(body)), 0) FROM exchanges"
            self._exchange_bytes = int(self._db.execute(total).fetchone()[0])
        whole = self._exchange_bytes + len(exchange.body) <= EXCHANGES_LIMIT
        body = exchange.body if whole else exchange.body[:EXCHANGE_HEAD]
        row = (
            exchange.ask_id,
            exchange.status,
            body,
            exchange.complete and (whole or len(exchange.body) <= EXCHANGE_HEAD),
            exchange.error,
            exchange.wall_s,
            time.time(),
        )
        fields = "ask_id, status, body, complete, error, wall_s, created_s"
        self._write(f"INSERT INTO exchanges ({fields}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        self._exchange_bytes += len(body)

    def exchanges(self, ask_id: str) -> list[Exchange]:
        """What the requests of an ask brought, in the order of arrival."""
        fields = "ask_id, status, body, complete, error, wall_s"
        rows = self._db.execute(f"SELECT {fields} FROM exchanges WHERE ask_id=? ORDER BY id", (ask_id,))
        return [Exchange(**{**dict(row), "complete": bool(row["complete"])}) for row in rows]

    def last_exchange(self, ask_id: str) -> Exchange | None:
        """The latest exchange of an ask."""
        found = self.exchanges(ask_id)
        return found[-1] if found else None

    def drop_replies(self, ask_ids: Iterable[str]) -> None:
        """Forget answers that were no answers (an outage), all or none, so that they are asked for again."""
        rows = [(name,) for name in ask_ids]
        self._db.write(lambda db: _many(db, "DELETE FROM replies WHERE ask_id=?", rows))

    def replies(self, ask_ids: Sequence[str] | None = None) -> dict[str, Reply]:
        """Replies by ask id: all, or those to some asks that there are."""
        fields = "ask_id, text, outcome, model, tokens_in, tokens_out, cost, latency_s, error"
        statement = f"SELECT {fields} FROM replies"
        if ask_ids is None:
            rows = self._db.execute(statement).fetchall()
        else:
            rows = [row for name in ask_ids for row in self._db.execute(f"{statement} WHERE ask_id=?", (name,))]
        return {row["ask_id"]: Reply(**dict(row)) for row in rows}

    def tokens_used(self) -> int:
        """Tokens of all replies, prompts included; replies without a count add nothing."""
        row = self._db.execute("SELECT SUM(COALESCE(tokens_in, 0) + COALESCE(tokens_out, 0)) FROM replies").fetchone()
        return int(row[0] or 0)

    # -- what a person says

    def add_feedback(self, generation: int, candidate: str, text: str) -> None:
        """Store what was said after a generation of the candidate that was shown; "" for nothing."""
        row = (generation, candidate, text, time.time())
        self._write("INSERT INTO feedback VALUES (?, ?, ?, ?)", row)

    def feedback(self, generation: int) -> str | None:
        """What was said after a generation, "" for nothing; None where nobody was asked."""
        row = self._db.execute("SELECT text FROM feedback WHERE generation=?", (generation,)).fetchone()
        return None if row is None else row["text"]

    # -- candidates

    def put_candidate(self, candidate: Candidate, run_id: str | None = None) -> None:
        """Insert a candidate or replace its state."""
        self._db.write(lambda db: _put_candidate(db, candidate, run_id))

    def put_candidates(self, candidates: Sequence[Candidate], kind: str, text: str) -> None:
        """Replace the states of several and add a line to the search's log: all of it or nothing."""

        def write(db: sqlite3.Connection) -> None:
            for candidate in candidates:
                _put_candidate(db, candidate, None)
            db.execute("INSERT INTO events (time_s, kind, text) VALUES (?, ?, ?)", (time.time(), kind, text))

        self._db.write(write)

    def candidates(self, generation: int | None = None) -> list[Candidate]:
        """Candidates in order of generation and index; of one generation if given."""
        if generation is None:
            rows = self._db.execute("SELECT * FROM candidates ORDER BY generation, idx")
        else:
            rows = self._db.execute("SELECT * FROM candidates WHERE generation=? ORDER BY idx", (generation,))
        return [_candidate(row) for row in rows]

    def candidate(self, name: str) -> Candidate | None:
        """One candidate by its id."""
        row = self._db.execute("SELECT * FROM candidates WHERE candidate_id=?", (name,)).fetchone()
        return None if row is None else _candidate(row)

    def ranked(self, before: int | None = None) -> Iterator[Candidate]:
        """The scored ones of a search, or of its generations before `before`, best first; each is read when it is
        taken. An iterator that is not taken to its end has to be closed: it holds the log of the database open."""
        # The plus keeps SQLite from reading all earlier generations and sorting them.
        statement = f"SELECT * FROM candidates WHERE {SCORED} AND +generation < ? ORDER BY {BEST_FIRST}"
        cursor = self._db.execute(statement, (_LAST if before is None else before,))
        try:
            for row in cursor:
                yield _candidate(row)
        finally:
            cursor.close()

    def best(self, before: int | None = None) -> Candidate | None:
        """The best by held-out fitness over the whole search, or over its generations before `before`."""
        with closing(self.ranked(before)) as order:
            return next(order, None)

    def history(self, before: int) -> History:
        """What generation `before` is told of earlier ones. A function of what is stored alone, so that a resumed
        search tells the same."""
        told = "SELECT * FROM candidates WHERE +generation < ?"
        counted = f"SELECT COUNT(*), SUM({SCORED}), SUM({_UNRANKED}) FROM candidates WHERE generation < ?"
        everything, scored, unranked = self._db.execute(counted, (before,)).fetchone()
        if everything <= HISTORY:
            rows = self._db.execute(f"{told} ORDER BY generation, idx", (before,))
            return History(tuple(_candidate(row).remembered() for row in rows), 0)
        half = HISTORY // 2
        rows = [
            *self._db.execute(f"{told} AND {SCORED} ORDER BY {BEST_FIRST} LIMIT {half}", (before,)),
            *self._db.execute(f"{told} AND {_UNRANKED} ORDER BY generation DESC, idx LIMIT {half}", (before,)),
        ]
        rows.sort(key=lambda row: (row["generation"], row["idx"]))
        kept = tuple(_candidate(row).remembered() for row in rows)
        return History(kept, scored + unranked - len(kept))

    # -- runs

    def put_run(self, run: Run) -> None:
        """Insert a finished run or replace it."""
        row = (
            run.run_id,
            run.candidate_id,
            run.role,
            run.seed,
            run.folder,
            run.status,
            run.fitness,
            run.fitness_std,
            json.dumps(run.result),
        )
        self._write("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def runs(self, role: str | None = None, candidate: str | None = None) -> list[Run]:
        """Finished runs in order of role and seed; of one role if given, and of one candidate of it if given."""
        wanted = [(name, value) for name, value in (("role", role), ("candidate_id", candidate)) if value is not None]
        where = " AND ".join(f"{name}=?" for name, _ in wanted) or "TRUE"
        rows = self._db.execute(
            f"SELECT * FROM runs WHERE {where} ORDER BY role, run_id", tuple(value for _, value in wanted)
        )
        return [_run(row) for row in rows]


def _many(db: sqlite3.Connection, statement: str, rows: Sequence[tuple]) -> None:
    db.executemany(statement, rows)


def _put_candidate(db: sqlite3.Connection, candidate: Candidate, run_id: str | None) -> None:
    now = time.time()
    row = {
        "candidate_id": candidate.candidate_id,
        "generation": candidate.generation,
        "idx": candidate.index,
        "parent_id": candidate.parent_id,
        "status": str(candidate.status),
        "source": candidate.source,
        "sha256": candidate.reward_sha256,
        "stage": candidate.stage,
        "error": candidate.error,
        "repairs": candidate.repairs,
        "fitness": candidate.fitness,
        "fitness_std": candidate.fitness_std,
        "run_id": run_id,
        "result_json": None if candidate.result is None else json.dumps(candidate.result),
        "reflection": candidate.reflection,
        "rung": candidate.rung,
        "rung_fitness": candidate.rung_fitness,
        "created_s": now,
        "updated_s": now,
    }
    names = ", ".join(row)
    marks = ", ".join(f":{name}" for name in row)
    updates = ", ".join(
        f"{name}=COALESCE(excluded.run_id, run_id)" if name == "run_id" else f"{name}=excluded.{name}"
        for name in row
        if name not in ("candidate_id", "created_s")
    )
    statement = f"INSERT INTO candidates ({names}) VALUES ({marks}) ON CONFLICT(candidate_id) DO UPDATE SET {updates}"
    db.execute(statement, row)


def _candidate(row: sqlite3.Row) -> Candidate:
    later = "rung" in row.keys()  # noqa: SIM118 - "in" a row looks among its values; version 3, an older one is only read
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
        fitness=row["fitness"],
        fitness_std=row["fitness_std"],
        result=None if row["result_json"] is None else json.loads(row["result_json"]),
        reflection=row["reflection"],
        repairs=row["repairs"],
        rung=row["rung"] if later else 0,
        rung_fitness=row["rung_fitness"] if later else None,
    )


def _run(row: sqlite3.Row) -> Run:
    return Run(
        run_id=row["run_id"],
        candidate_id=row["candidate_id"],
        role=row["role"],
        seed=row["seed"],
        folder=row["folder"],
        status=row["status"],
        fitness=row["fitness"],
        fitness_std=row["fitness_std"],
        result=json.loads(row["result_json"]),
    )
