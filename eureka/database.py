"""The file under the archive: its schema and versions, how it is opened, and how it is written.

A new database is made whole under another name and renamed. An older one is copied before it is brought to this
version, one transaction a step; a newer one is refused. Checks read only, so that a file which is refused stays as it
was, byte for byte.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from eureka.disk import Patience, hindrance
from rl.record import write_atomic
from tasks.errors import UserError

SCHEMA_VERSION = 3

_EXCHANGES = """
CREATE TABLE IF NOT EXISTS exchanges (
    id INTEGER PRIMARY KEY, ask_id TEXT NOT NULL, status INTEGER, body BLOB NOT NULL, complete INTEGER NOT NULL,
    error TEXT, wall_s REAL NOT NULL, created_s REAL NOT NULL);
CREATE INDEX IF NOT EXISTS exchanges_of_ask ON exchanges (ask_id);
"""
_FEEDBACK = """
CREATE TABLE feedback (
    generation INTEGER PRIMARY KEY, candidate_id TEXT NOT NULL, text TEXT NOT NULL, created_s REAL NOT NULL);
"""
_SCHEMA = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE asks (
    ask_id TEXT PRIMARY KEY, candidate_id TEXT NOT NULL, generation INTEGER NOT NULL, attempt INTEGER NOT NULL,
    prompt_json TEXT NOT NULL, created_s REAL NOT NULL);
CREATE TABLE replies (
    ask_id TEXT PRIMARY KEY REFERENCES asks(ask_id), text TEXT, outcome TEXT NOT NULL, model TEXT, tokens_in INTEGER,
    tokens_out INTEGER, cost REAL, latency_s REAL, error TEXT, created_s REAL NOT NULL);
{_EXCHANGES}
CREATE TABLE candidates (
    candidate_id TEXT PRIMARY KEY, generation INTEGER NOT NULL, idx INTEGER NOT NULL, parent_id TEXT,
    status TEXT NOT NULL, source TEXT, sha256 TEXT, stage TEXT, error TEXT, repairs INTEGER NOT NULL, fitness REAL,
    fitness_std REAL, run_id TEXT, result_json TEXT, reflection TEXT, created_s REAL NOT NULL, updated_s REAL NOT NULL,
    rung INTEGER NOT NULL DEFAULT 0, rung_fitness REAL);
CREATE TABLE runs (
    run_id TEXT PRIMARY KEY, candidate_id TEXT, role TEXT NOT NULL, seed INTEGER NOT NULL, folder TEXT NOT NULL,
    status TEXT NOT NULL, fitness REAL, fitness_std REAL, result_json TEXT NOT NULL);
CREATE TABLE events (id INTEGER PRIMARY KEY, time_s REAL NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL);
{_FEEDBACK}
"""

_INDEXES = """
CREATE INDEX IF NOT EXISTS candidates_of_generation ON candidates (generation, fitness DESC, idx, status, stage);
CREATE INDEX IF NOT EXISTS candidates_by_fitness ON candidates (fitness DESC, generation, idx, status);
CREATE INDEX IF NOT EXISTS asks_of_candidate ON asks (candidate_id, attempt);
CREATE INDEX IF NOT EXISTS replies_told ON replies (outcome, model, tokens_in, tokens_out, cost, latency_s);
CREATE INDEX IF NOT EXISTS runs_of_role ON runs (role, candidate_id);
"""
"""Without them each look at a long search reads all of its programs, prompts and replies. They say nothing that the
tables do not, so they are no version: a search that is written to gets them, one that is only read does without."""

_RUNGS = """
ALTER TABLE candidates ADD COLUMN rung INTEGER NOT NULL DEFAULT 0;
ALTER TABLE candidates ADD COLUMN rung_fitness REAL;
"""
_MIGRATIONS: dict[int, str] = {1: _EXCHANGES, 2: _RUNGS + _FEEDBACK}
"""Version -> statements that make the next one of it. Version 1 had no raw answers, or had their table unannounced;
version 2 had no candidates that were stopped early, and no feedback of a person."""


class Database:
    """One SQLite file, open.

    Args:
        path: The file.
        create: Whether a missing one is made.
        read_only: Open it for reading: nothing is made, migrated or written, and an older version is read as it is.
        patience: Waits where the disk is full; without it a full disk is an error.

    Raises:
        UserError: it is missing, no database, damaged, of a newer version, or cannot be written. Nothing is changed
            then.
    """

    def __init__(
        self, path: Path, create: bool = True, read_only: bool = False, patience: Patience | None = None
    ) -> None:
        self.path = path
        self.patience = patience
        if not path.is_file():
            self._make(create and not read_only)
        with _one_line(path):
            version = _examine(path)
            if read_only:
                self._db = connect_read_only(path)
            else:
                self._db = self._open(version)
        self._db.row_factory = sqlite3.Row

    def execute(self, statement: str, values: object = ()) -> sqlite3.Cursor:
        """Run a statement that reads."""
        return self._db.execute(statement, values)  # pyright: ignore[reportArgumentType]

    def write(self, action: Callable[[sqlite3.Connection], None]) -> None:
        """Run what `action` writes as one transaction; what this acknowledged survives a kill.

        Args:
            action: Called again after a refusal by a full disk, so it must depend on nothing that it changed.

        Raises:
            UserError: the file cannot be written any more.
        """
        with _one_line(self.path):
            if self.patience is None:
                self._transaction(action)
            else:
                self.patience.until_done(self.path.name, lambda: self._transaction(action))

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _transaction(self, action: Callable[[sqlite3.Connection], None]) -> None:
        if self._db.in_transaction:  # an interrupt came between its begin and its end
            self._db.execute("ROLLBACK")
        try:
            self._db.execute("BEGIN IMMEDIATE")
            action(self._db)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # SQLite itself rolls back where the disk is full
                self._db.execute("ROLLBACK")
            raise

    def _make(self, allowed: bool) -> None:
        if not allowed:
            raise UserError(f"{self.path} does not exist; the folder holds no search. Start one without --resume.")
        orphan = self.path.with_name(f"{self.path.name}-wal")
        if orphan.exists() or (self.path.parent / "candidates").exists():
            raise UserError(
                f"{self.path} is missing, though its search was begun; restore it from a copy, or start a new search "
                "in another folder."
            )
        if self.patience is None:
            self._make_whole()
        else:
            self.patience.until_done(self.path.name, self._make_whole)

    def _make_whole(self) -> None:
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
            _run(db, _SCHEMA + _INDEXES)
            db.execute("INSERT INTO meta VALUES ('schema_version', ?)", (json.dumps(SCHEMA_VERSION),))
            write_atomic(self.path, db.serialize())

    def _open(self, version: int) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, isolation_level=None)
        try:
            if version < SCHEMA_VERSION:
                self._migrate(db, version)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.execute("PRAGMA foreign_keys=ON")
            if self.patience is None:
                _run(db, _INDEXES)
            else:
                self.patience.until_done(self.path.name, lambda: _run(db, _INDEXES))
        except BaseException:
            db.close()
            raise
        return db

    def _migrate(self, db: sqlite3.Connection, version: int) -> None:
        copy = copy_before(self.path, version)
        part = copy.with_name(f".{copy.name}.{os.getpid()}.part")
        try:
            with closing(sqlite3.connect(part)) as target:
                db.backup(target)
            part.replace(copy)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        db.execute("PRAGMA synchronous=FULL")
        for step in range(version, SCHEMA_VERSION):
            db.execute("BEGIN IMMEDIATE")
            try:
                _run(db, _MIGRATIONS[step])
                db.execute("UPDATE meta SET value=? WHERE key='schema_version'", (json.dumps(step + 1),))
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise


def copy_before(path: Path, version: int) -> Path:
    """Where the copy of a database is kept that was brought from `version` to a newer one."""
    return path.with_name(f"{path.stem}.v{version}{path.suffix}")


def connect_read_only(path: Path) -> sqlite3.Connection:
    """A connection that writes nothing; raises sqlite3.Error.

    Without a log beside it nobody has the database open: as immutable it is read without making one, so that it may
    lie on a medium that cannot be written.
    """
    how = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "mode=ro&immutable=1"
    return sqlite3.connect(f"{path.resolve().as_uri()}?{how}", uri=True, isolation_level=None)


def _run(db: sqlite3.Connection, statements: str) -> None:
    # Not by executescript, which commits the transaction that it is called in.
    for statement in statements.split(";"):
        if statement.strip():
            db.execute(statement)


def _examine(path: Path) -> int:
    """The schema version of a sound database that this version can use."""
    try:
        with closing(connect_read_only(path)) as db:
            verdict = db.execute("PRAGMA quick_check").fetchone()[0]
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
            row = db.execute("SELECT value FROM meta WHERE key='schema_version'").fetchone()
    except sqlite3.OperationalError as error:
        raise UserError(f"{path} is no search database ({error}); it was left as it is.") from error
    try:
        found = json.loads(row[0]) if row else None
    except ValueError:
        found = row[0]
    if isinstance(found, int) and not isinstance(found, bool) and 1 <= found <= SCHEMA_VERSION:
        return found
    raise UserError(
        f"{path} has schema version {found}; this version of eureka-skills reads 1 to {SCHEMA_VERSION} and left it as "
        "it is. Use the version that wrote it, or start a new search."
    )


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Turns SQLite's complaints about a file into a UserError; errors of the program stay what they are."""
    try:
        yield
    except sqlite3.OperationalError as error:
        reason = hindrance(error)
        if reason is not None:
            raise UserError(f"{path} cannot be used now: {reason}. Nothing is lost; resume later.") from error
        raise UserError(f"{path} cannot be used ({error}); make it readable and writable.") from error
    except sqlite3.DatabaseError as error:
        if type(error) is not sqlite3.DatabaseError:
            raise
        raise UserError(
            f"{path} is damaged ({error}); it was left as it is. Restore it from a copy, or start a new search."
        ) from error
