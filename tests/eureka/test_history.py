"""What a search is told of its earlier candidates by queries is what it would be told by reading all of them."""

from __future__ import annotations

import math
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from eureka import archive as archives
from eureka.archive import Archive
from eureka.candidate import Candidate, Status, best, candidate_id, ranked
from eureka.prompts import memory, runner_up

UNRANKED = [Status.REFUSED, Status.NO_REPLY, Status.FAILED, Status.ELIMINATED]
STATUSES = [Status.TRAINED] * 4 + UNRANKED


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A given reward and 40 generations of 8 with ties, twins of the best, NaN and infinite fitness; two candidates are not
    finished."""
    path = tmp_path_factory.mktemp("history") / "search.db"
    rng = random.Random(0)
    archive = Archive(path)
    archive._db._db.execute("PRAGMA synchronous=OFF")
    archive.put_candidate(Candidate("g00_c00", 0, 0, status=Status.TRAINED, source="the given program", fitness=0.5))
    for place in range(320):
        generation, index = place // 8 + 1, place % 8
        status = rng.choice(STATUSES)
        fitness = rng.choice([math.nan, math.inf, -math.inf, *(round(rng.gauss(0, 1), 1) for _ in range(20))])
        twin = {"equal_to": "g01_c00"} if place % 20 == 19 else None
        if twin or place == 0:
            status, fitness = Status.TRAINED, 9.0
        if place in (318, 319):
            status = Status.TRAINING
        name = candidate_id(generation, index)
        archive.put_candidate(
            Candidate(
                name,
                generation,
                index,
                status=status,
                source=f"program of {name}",
                error=None if status is Status.TRAINED else f"why {name}",
                fitness=fitness if status is Status.TRAINED else None,
                rung_fitness=99.0 if status is Status.ELIMINATED else None,
                result=twin,
            )
        )
    archive.close()
    return path


@pytest.mark.parametrize("before", [0, 1, 2, 10, 26, 27, 41])
def test_history_and_ranking_say_what_all_candidates_would(
    database: Path, before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts of a long search: the same lines, the same count of what is left out, the same best and rival."""
    with closing(Archive(database, read_only=True)) as archive:
        earlier = [c for c in archive.candidates() if c.generation < before]
        monkeypatch.setattr(archives, "HISTORY", 130)
        history = archive.history(before)
        assert len(history.candidates) <= 130
        assert before < 26 or set(UNRANKED) <= {c.status for c in history.candidates}
        assert memory(history.candidates, further=history.further) == memory([c.remembered() for c in earlier])
        assert list(history.candidates) == sorted(history.candidates, key=lambda c: (c.generation, c.index))
        if len(earlier) <= 130:
            assert list(history.candidates) == [c.remembered() for c in earlier]
        assert list(archive.ranked(before)) == ranked(earlier)
        leader = archive.best(before)
        assert leader == best(earlier)
        if leader is not None:
            with closing(archive.ranked(before)) as order:
                rival = runner_up(leader, order)
            assert rival == runner_up(leader, ranked(earlier))
            assert rival is None or rival.equal_to is None


def test_a_long_history_is_not_read_whole(tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results of those that are not told of are made unreadable, and nothing is missed."""
    copy = tmp_path / "search.db"
    copy.write_bytes(database.read_bytes())
    monkeypatch.setattr(archives, "HISTORY", 130)
    with closing(Archive(copy)) as archive:
        told = archive.history(41)
    with closing(sqlite3.connect(copy)) as db, db:
        names = ", ".join(f"'{c.candidate_id}'" for c in told.candidates)
        db.execute(f"UPDATE candidates SET result_json='[' WHERE candidate_id NOT IN ({names})")
    with closing(Archive(copy)) as archive:
        assert archive.history(41) == told


def test_queries_of_a_long_search_use_its_indexes(database: Path) -> None:
    """Not one statement of a generation or a page goes through a table: what it touches would grow with the search."""
    seen: list[str] = []
    with closing(Archive(database)) as archive:
        archive._db._db.set_trace_callback(seen.append)
        archive.history(41), archive.best(30), archive.candidates(7), archive.runs("candidate", "g01_c00")
        archive._db._db.set_trace_callback(None)
        plans = {text: [row[3] for row in archive._db.execute(f"EXPLAIN QUERY PLAN {text}")] for text in seen}
    assert len(plans) >= 6
    for text, plan in plans.items():
        touched = [step for step in plan if step.startswith(("SCAN", "SEARCH"))]
        assert touched and all("INDEX" in step for step in touched), (text, plan)
