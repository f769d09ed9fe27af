"""The page of a search with more candidates than a page can hold."""

from __future__ import annotations

import dataclasses
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from eureka import report_counts
from eureka.archive import Archive, Run
from eureka.candidate import Candidate, Status, ask_id, candidate_id
from eureka.report import header_facts, render
from eureka.report_counts import DETAILED
from eureka.report_data import read_search
from eureka.report_story import best_lines, failure_groups, generation_stories, spending
from eureka.report_view import candidate_views
from tests.eureka.html_page import Page

ASK = "INSERT INTO asks VALUES (?, ?, ?, 0, ?, 1.0)"
REPLY = "INSERT INTO replies VALUES (?, ?, 'ok', 'a-model', 3, 4, 0.5, 1.0, NULL, 2.0)"


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 generations of 4, all read-only to tests; every generation's last is refused, g50_c00 is the best by far."""
    folder = tmp_path_factory.mktemp("long")
    archive = Archive(folder / "search.db")
    archive._db._db.execute("PRAGMA synchronous=OFF")
    for generation in range(1, 101):
        for index in range(4):
            name = candidate_id(generation, index)
            parent = "g01_c02" if generation == 50 and index == 0 else None
            fitness = 500.0 if parent else float(generation >= 90) + 0.001 * index
            c = Candidate(
                name, generation, index, parent_id=parent, status=Status.TRAINED, source="x = 1", fitness=fitness
            )
            if index == 3:
                c = Candidate(name, generation, index, status=Status.REFUSED, stage="check", error=f"why {name}")
            archive.put_candidate(c)
    archive.close()
    with closing(sqlite3.connect(folder / "search.db")) as db, db:
        for name, generation in db.execute("SELECT candidate_id, generation FROM candidates").fetchall():
            db.execute(ASK, (ask_id(name, 0), name, generation, f'[{{"role": "user", "content": "prompt of {name}"}}]'))
            db.execute(REPLY, (ask_id(name, 0), f"reply of {name}"))
    return folder


def test_a_long_search_shows_the_best_and_the_latest_in_full(searched: Path) -> None:
    """Of 400 candidates those in the middle are a line with a way to their folder; the leader's ancestors are whole."""
    record = read_search(searched)
    assert {"g50_c00", "g01_c02", "g100_c02"} <= record.choice.detailed
    assert "g30_c00" not in record.choice.detailed
    assert DETAILED // 2 <= len(record.choice.detailed) <= DETAILED + 2
    page = render(record)
    assert "prompt of g50_c00" in page and "reply of g01_c02" in page
    assert "reply of g30_c00" not in page and 'href="candidates/g30_c00/"' in page
    assert sum(view.tokens or 0 for view in candidate_views(record, "")) == 400 * 7
    assert record.whole


def test_a_longer_search_is_counted(searched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Candidates without a line are in every figure: 400 of them, 100 refused, 2,800 tokens, the best so far."""
    everything = read_search(searched)
    monkeypatch.setattr(report_counts, "DETAILED", 20)
    monkeypatch.setattr(report_counts, "LISTED", 40)
    record = read_search(searched)
    assert not record.whole and {"g50_c00", "g01_c02", "g100_c02"} <= record.choice.detailed
    assert len(record.candidates) <= 40 + 2 and record.choice.whole_from == 96
    page = Page(render(record))
    assert "one of 400 candidates in 100 generations" in page.text("summary")
    assert "Of 400 candidates these are" in page.text("candidates")
    assert re.search(r"refused at check 100 .*\bg100_c03 why g100_c03\b.* more that this page", page.text("failures"))
    assert page.text("spending-total").split() == [
        "all",
        "400",
        "400",
        "ok",
        "400",
        "1,200",
        "1,600",
        "200",
        "6",
        "min",
        "40",
        "s",
    ]
    assert [row.generation for row in spending(record)] == [96, 97, 98, 99, 100, None]
    assert best_lines(record.counts.generations) == {g: 0.002 if g < 50 else 500.0 for g in range(1, 101)}
    told = [(story.generation, story.verdict) for story in generation_stories(record, "")]
    assert told == [(1, "first"), (50, "improved"), *((g, "not improved") for g in range(51, 101))]
    assert [s for s in generation_stories(everything, "") if s.generation in dict(told)] == generation_stories(
        record, ""
    )
    assert '"g30_c00"' not in render(record)


def test_the_page_reads_nothing_of_those_it_does_not_list(
    searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their programs, results and conversations made unreadable, the page is the same byte for byte."""
    monkeypatch.setattr(report_counts, "DETAILED", 20)
    monkeypatch.setattr(report_counts, "LISTED", 40)
    folder = tmp_path / searched.name
    shutil.copytree(searched, folder)
    before = read_search(folder)
    page = render(before)
    with closing(sqlite3.connect(folder / "search.db")) as db, db:
        shown = ", ".join(f"'{c.candidate_id}'" for c in before.candidates)
        db.execute(f"UPDATE candidates SET result_json='[', source=X'FF' WHERE candidate_id NOT IN ({shown})")
        db.execute(f"UPDATE asks SET prompt_json='[' WHERE candidate_id NOT IN ({shown})")
    assert render(read_search(folder)) == page


def test_those_that_were_stopped_early_and_generation_0_are_counted(
    searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A given reward, a stopped candidate in each of the 100 generations, a sentence after two: told on a page that has
    no line for most, of the listed with their rungs' runs, and never among the failures."""
    monkeypatch.setattr(report_counts, "DETAILED", 20)
    monkeypatch.setattr(report_counts, "LISTED", 40)
    folder = tmp_path / searched.name
    shutil.copytree(searched, folder)
    with closing(Archive(folder / "search.db")) as archive:
        archive._db._db.execute("PRAGMA synchronous=OFF")
        archive.put_candidate(Candidate("g00_c00", 0, 0, status=Status.TRAINED, source="x = 1", fitness=0.0005))
        for candidate in archive.candidates():
            if candidate.index == 1:
                stopped = {"status": Status.ELIMINATED, "stage": "rung1", "error": "low", "fitness": None}
                archive.put_candidate(dataclasses.replace(candidate, **stopped, rung=1, rung_fitness=700.0))
        for name in ("g100_c01", "g30_c01"):
            run = Run(f"{name}_s0_rung1", name, "rung", 0, f"candidates/{name}/s0_rung1", "ok", 700.0, 0.1, {})
            archive.put_run(run)
        archive.add_feedback(50, "g50_c00", "steadier, please")
        archive.add_feedback(99, "g50_c00", "")
    record = read_search(folder)
    assert not record.whole and record.counts.candidates == 401
    assert [run.candidate_id for run in record.runs_of_role("rung")] == ["g100_c01"]
    assert [run.folder.name for run in [record.run_of("g100_c01")] if run] == ["s0_rung1"]
    assert dict(header_facts(record))["halving"] == "100 candidates stopped early"
    told = {story.generation: story for story in generation_stories(record, "")}
    assert told[0].verdict == "first" and "stopped early" not in told[0].sentence
    assert told[50].said == "steadier, please" and told[50].sentence.endswith("; 1 was stopped early.")
    assert told[99].said == "" and told[100].sentence.endswith("; 1 was stopped early.")
    assert best_lines(record.counts.generations)[0] == 0.0005
    assert [(group.title, group.number) for group in failure_groups(record)] == [("refused at check", 100)]
    page = Page(render(record))
    assert "steadier, please" in page.text("progress") and "Generation 0." in page.text("progress")
