"""Every candidate ever made, failures included, in one SQLite file.

One writer, the search; anyone may read while it runs (write-ahead log). Each method that writes is one transaction
with `synchronous=FULL`: what it acknowledged survives a kill at any moment. Rows are matched by ids, never by order.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eureka.candidate import Candidate, Status, best
from eureka.designers.base import Ask, Exchange, Reply
from tasks.errors import UserError

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE asks (
    ask_id TEXT PRIMARY KEY, candidate_id TEXT NOT NULL, generation INTEGER NOT NULL, attempt INTEGER NOT NULL,
    prompt_json TEXT NOT NULL, created_s REAL NOT NULL);
CREATE TABLE replies (
    ask_id TEXT PRIMARY KEY REFERENCES asks(ask_id), text TEXT, outcome TEXT NOT NULL, model TEXT, tokens_in INTEGER,
    tokens_out INTEGER, cost REAL, latency_s REAL, error TEXT, created_s REAL NOT NULL);
CREATE TABLE candidates (
    candidate_id TEXT PRIMARY KEY, generation INTEGER NOT NULL, idx INTEGER NOT NULL, parent_id TEXT,
    status TEXT NOT NULL, source TEXT, sha256 TEXT, stage TEXT, error TEXT, repairs INTEGER NOT NULL, fitness REAL,
    fitness_std REAL, run_id TEXT, result_json TEXT, reflection TEXT, created_s REAL NOT NULL, updated_s REAL NOT NULL);
CREATE TABLE runs (
    run_id TEXT PRIMARY KEY, candidate_id TEXT, role TEXT NOT NULL, seed INTEGER NOT NULL, folder TEXT NOT NULL,
    status TEXT NOT NULL, fitness REAL, fitness_std REAL, result_json TEXT NOT NULL);
CREATE TABLE events (id INTEGER PRIMARY KEY, time_s REAL NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL);
"""

# Added to databases that were made without it; a version that does not know it is not disturbed by it.
_EXCHANGES = """
CREATE TABLE IF NOT EXISTS exchanges (
    id INTEGER PRIMARY KEY, ask_id TEXT NOT NULL, status INTEGER, body BLOB NOT NULL, complete INTEGER NOT NULL,
    error TEXT, wall_s REAL NOT NULL, created_s REAL NOT NULL)
"""
EXCHANGES_LIMIT = 256 * 2**20
"""Bytes of raw answers one search keeps whole; of further ones the first `EXCHANGE_HEAD` bytes."""
EXCHANGE_HEAD = 4096


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

    Raises:
        UserError: it is missing, no database, damaged, or of another schema version. Nothing is changed then.
    """

    def __init__(self, path: Path, create: bool = True) -> None:
        self.path = path
        exists = path.is_file()
        if not exists and not create:
            raise UserError(f"{path} does not exist; the folder holds no search to resume. Start one without --resume.")
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.row_factory = sqlite3.Row
            if exists:
                self._check()
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            if not exists:
                with self._transaction():
                    for statement in _SCHEMA.split(";"):
                        if statement.strip():
                            self._db.execute(statement)
                    self._set("schema_version", SCHEMA_VERSION)
            self._db.execute(_EXCHANGES)
        except sqlite3.DatabaseError as error:
            raise UserError(
                f"{path} is damaged ({error}); it was left as it is. Restore it from a copy, or start a new search."
            ) from error

    def _check(self) -> None:
        try:
            verdict = self._db.execute("PRAGMA quick_check").fetchone()[0]
            version = self._db.execute("SELECT value FROM meta WHERE key='schema_version'").fetchone()
        except sqlite3.OperationalError as error:
            raise UserError(f"{self.path} is no search database ({error}); it was left as it is.") from error
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        found = json.loads(version[0]) if version else None
        if found != SCHEMA_VERSION:
            raise UserError(
                f"{self.path} has schema version {found}; this version reads {SCHEMA_VERSION}. "
                "Use the version of eureka-skills that wrote it, or start a new search."
            )

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # -- meta and events

    def _set(self, key: str, value: object) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))

    def set_meta(self, key: str, value: object) -> None:
        """Store a JSON value under a key."""
        with self._transaction():
            self._set(key, value)

    def meta(self, key: str, default: Any = None) -> Any:
        """The value of a key, or default."""
        row = self._db.execute("SELECT value FROM meta WHERE key=?", (key,)).fetchone()
        return default if row is None else json.loads(row[0])

    def add_event(self, kind: str, text: str) -> None:
        """Append a line to the search's log."""
        with self._transaction():
            self._db.execute("INSERT INTO events (time_s, kind, text) VALUES (?, ?, ?)", (time.time(), kind, text))

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
        with self._transaction():
            self._db.executemany("INSERT OR IGNORE INTO asks VALUES (?, ?, ?, ?, ?, ?)", rows)

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
        with self._transaction():
            self._db.execute("INSERT INTO replies VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def add_exchange(self, exchange: Exchange) -> None:
        """Store what one request brought, before it is read."""
        kept = self._db.execute("SELECT COALESCE(SUM(LENGTH(body)), 0) FROM exchanges").fetchone()[0]
        whole = kept + len(exchange.body) <= EXCHANGES_LIMIT
        row = (
            exchange.ask_id,
            exchange.status,
            exchange.body if whole else exchange.body[:EXCHANGE_HEAD],
            exchange.complete and (whole or len(exchange.body) <= EXCHANGE_HEAD),
            exchange.error,
            exchange.wall_s,
            time.time(),
        )
        fields = "ask_id, status, body, complete, error, wall_s, created_s"
        with self._transaction():
            self._db.execute(f"INSERT INTO exchanges ({fields}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def exchanges(self, ask_id: str) -> list[Exchange]:
        """What the requests of an ask brought, in the order of arrival."""
        fields = "ask_id, status, body, complete, error, wall_s"
        rows = self._db.execute(f"SELECT {fields} FROM exchanges WHERE ask_id=? ORDER BY id", (ask_id,))
        return [Exchange(**{**dict(row), "complete": bool(row["complete"])}) for row in rows]

    def last_exchange(self, ask_id: str) -> Exchange | None:
        """The latest exchange of an ask."""
        found = self.exchanges(ask_id)
        return found[-1] if found else None

    def drop_reply(self, ask_id: str) -> None:
        """Forget an answer that was no answer (an outage), so that it is asked again."""
        with self._transaction():
            self._db.execute("DELETE FROM replies WHERE ask_id=?", (ask_id,))

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

    # -- candidates

    def put_candidate(self, candidate: Candidate, run_id: str | None = None) -> None:
        """Insert a candidate or replace its state."""
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
        statement = (
            f"INSERT INTO candidates ({names}) VALUES ({marks}) ON CONFLICT(candidate_id) DO UPDATE SET {updates}"
        )
        with self._transaction():
            self._db.execute(statement, row)

    def candidates(self, generation: int | None = None) -> list[Candidate]:
        """Candidates in order of generation and index; of one generation if given."""
        rows = self._db.execute(
            "SELECT * FROM candidates WHERE ?1 IS NULL OR generation=?1 ORDER BY generation, idx", (generation,)
        )
        return [_candidate(row) for row in rows]

    def best(self) -> Candidate | None:
        """The best by held-out fitness over the whole search."""
        return best(self.candidates())

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
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def runs(self, role: str | None = None) -> list[Run]:
        """Finished runs in order of role and seed; of one role if given."""
        rows = self._db.execute("SELECT * FROM runs WHERE ?1 IS NULL OR role=?1 ORDER BY role, run_id", (role,))
        return [_run(row) for row in rows]


def _candidate(row: sqlite3.Row) -> Candidate:
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
