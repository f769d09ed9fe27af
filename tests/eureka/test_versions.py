"""Searches of older versions are brought to this one; those of newer ones are left alone.

`tests/data/search_v1` and `search_v2` were written by these versions themselves: a search of the slider, killed between
its two generations.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from eureka import database
from eureka.archive import Archive
from eureka.database import SCHEMA_VERSION, Database, copy_before
from eureka.designers.base import Exchange
from eureka.search_config import load_config
from tasks.errors import UserError
from tests.eureka.scripted import SLIDER
from tests.eureka.sweeping import Case

DATA = Path(__file__).parents[1] / "data"
TABLES = ("asks", "replies", "candidates", "runs", "events")
CANDIDATE_COLUMNS = 17  # of versions 1 and 2; later ones have theirs behind them


def begun_by_version(version: int, folder: Path, announced: bool = True) -> Path:
    """The folder of that search; `announced` False: from before raw answers were kept."""
    source = DATA / f"search_v{version}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "search.json").write_text((source / "search.json").read_text().replace("SLIDER", str(SLIDER)))
    with closing(sqlite3.connect(folder / "search.db")) as db:
        db.executescript((source / "search.sql").read_text().replace("SLIDER", str(SLIDER)))
        if not announced:
            db.execute("DROP TABLE exchanges")
        db.execute("PRAGMA journal_mode=WAL")
        db.commit()
    return folder


def contents(path: Path) -> dict[str, list[tuple]]:
    """All rows of the tables that every version has."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        rows = {name: db.execute(f"SELECT * FROM {name}").fetchall() for name in TABLES}
    return {**rows, "candidates": [row[:CANDIDATE_COLUMNS] for row in rows["candidates"]]}


def schema(path: Path) -> dict[str, list[tuple]]:
    """Table or index -> its columns."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        names = [row[0] for row in db.execute("SELECT name FROM sqlite_master")]
        return {name: db.execute(f"PRAGMA table_info({name})").fetchall() for name in names}


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return json.loads(db.execute("SELECT value FROM meta WHERE key='schema_version'").fetchone()[0])


@pytest.mark.parametrize(("version", "announced"), [(1, True), (1, False), (2, True)])
def test_an_older_database_is_copied_and_migrated(tmp_path, version, announced):
    """Every row is kept, what was is beside it, and its tables are those of a new database."""
    path = begun_by_version(version, tmp_path, announced) / "search.db"
    before = contents(path)
    assert version_of(path) == version and len(before["candidates"]) == 2
    archive = Archive(path, create=False)
    archive.add_exchange(Exchange("g01_c00_r0", 200, b"raw", True, None, 0.1))
    assert archive.last_exchange("g01_c00_r0") is not None
    assert archive.best() is not None
    assert {(c.rung, c.rung_fitness) for c in archive.candidates()} == {(0, None)}
    archive.close()
    assert version_of(path) == SCHEMA_VERSION == 3 and contents(path) == before
    copy = copy_before(path, version)
    assert version_of(copy) == version and contents(copy) == before
    (tmp_path / "new").mkdir()
    Archive(tmp_path / "new" / "search.db").close()
    assert schema(path) == schema(tmp_path / "new" / "search.db")


@pytest.mark.parametrize("version", [1, 2])
def test_a_search_of_an_older_version_goes_on(driver, version):
    """Its first generation is taken as it is, the second is asked for and trained to the end."""
    case = Case(driver, f"version {version}")
    begun_by_version(version, case.folder)
    before = contents(case.folder / "search.db")
    assert case.run() == 0, (driver.place / "driver.log").read_text()[-2000:]
    after = contents(case.folder / "search.db")
    assert [row[:9] for row in after["candidates"] if row[1] == 1] == [row[:9] for row in before["candidates"]]
    assert [name for name in case.logged("paid") if name.startswith("g01")] == []
    assert sorted(case.logged("started")) == ["final_s1000", "g02_c00_s0", "human_s1000", "sparse_s1000"]
    assert (case.folder / "done").exists()


def test_a_migration_that_fails_changes_nothing(tmp_path, monkeypatch):
    """Its statements are one transaction; the next try finds version 1 whole."""
    path = begun_by_version(1, tmp_path, announced=False) / "search.db"
    before = contents(path)
    half = {1: "CREATE TABLE exchanges (id INTEGER PRIMARY KEY); UPDATE runs SET status='lost'; NO STATEMENT"}
    with monkeypatch.context() as patched:
        patched.setattr(database, "_MIGRATIONS", half)
        with pytest.raises(UserError, match=r"search\.db"):
            Archive(path, create=False)
    assert version_of(path) == 1 and contents(path) == before
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT name FROM sqlite_master WHERE name='exchanges'").fetchone() is None
    Archive(path, create=False).close()
    assert version_of(path) == SCHEMA_VERSION and contents(path) == before


def test_looking_at_a_search_of_version_1_leaves_it_so(tmp_path):
    path = begun_by_version(1, tmp_path) / "search.db"
    before = path.read_bytes()
    archive = Archive(path, create=False, read_only=True)
    assert archive.tokens_used() == 45 and len(archive.candidates()) == 2
    with pytest.raises(UserError):
        archive.set_meta("a", 1)
    archive.close()
    assert path.read_bytes() == before and [p.name for p in tmp_path.glob("search.v*")] == []


@pytest.mark.parametrize("found", ["4", "99", '"2"', "true", "none"])
def test_a_newer_version_is_refused_and_not_touched(tmp_path, found):
    """Not even the log of a search that was killed is folded in."""
    path = begun_by_version(1, tmp_path) / "search.db"
    writer = sqlite3.connect(path)
    writer.execute("UPDATE meta SET value=? WHERE key='schema_version'", (found,))
    writer.commit()
    kept = {name: (tmp_path / name).read_bytes() for name in ("search.db", "search.db-wal")}
    writer.close()
    for name, data in kept.items():  # as a kill would have left them
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=r"schema version .*reads 1 to 3 and left it") as refused:
        Archive(path, create=False)
    assert "\n" not in str(refused.value)
    assert {name: (tmp_path / name).read_bytes() for name in kept} == kept


def test_a_database_that_went_missing_is_not_begun_anew(tmp_path):
    """Its replies were paid for: that is said instead of asking for all again."""
    (tmp_path / "candidates").mkdir()
    with pytest.raises(UserError, match=r"missing, though its search was begun"):
        Database(tmp_path / "search.db")
    assert not (tmp_path / "search.db").exists()


def test_settings_of_version_1_stay_what_they_were(tmp_path):
    """What came later is off for them; the file is not changed."""
    folder = begun_by_version(1, tmp_path)
    before = (folder / "search.json").read_bytes()
    data = json.loads(before)
    del data["designer"]["max_retry_after_s"]  # version 1 came without it at first
    (folder / "search.json").write_text(json.dumps(data))
    config = load_config(folder)
    assert (config.samples, config.generations, config.confirm, config.halves) == (2, 2, 0, False)
    assert config.designer.max_retry_after_s == 300.0 and config.designer.designer == "evolution"
    assert json.loads((folder / "search.json").read_text()) == data


@pytest.mark.parametrize("schema", [4, 0, "1", None, True])
def test_settings_of_another_version_are_refused(tmp_path, schema):
    folder = begun_by_version(1, tmp_path)
    data = json.loads((folder / "search.json").read_text())
    (folder / "search.json").write_text(json.dumps({**data, "schema": schema}))
    with pytest.raises(UserError, match=r"schema .*reads 1 to 3"):
        load_config(folder)
