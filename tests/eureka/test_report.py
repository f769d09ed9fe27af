"""The report: its parts, its numbers against the database, hostile text, unfinished searches, and a real browser."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import re
import sqlite3
import statistics
from pathlib import Path

import pytest

from eureka import report_view
from eureka.archive import Archive
from eureka.candidate import Candidate, Status
from eureka.report import write_report
from eureka.report_text import format_number
from tasks.errors import UserError
from tests.eureka.html_page import Page, cells
from tests.eureka.report_fixture import CHILD, FINALS, HOSTILE, PLAN, write_search

SECTIONS = ("summary", "progress", "best", "candidates", "failures", "finals", "spending", "settings")
ATTRIBUTES_THAT_LOAD = ("src", "href", "srcset", "poster", "data", "action", "xlink:href", "background")


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_search(tmp_path_factory.mktemp("runs") / "ant-run" / "20260101-120000")
    assert write_report(folder) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def html(search: Path) -> str:
    return (search / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_every_part_is_there(page: Page) -> None:
    for section in SECTIONS:
        assert page.find("section", id=section), section
    assert "ant-run" in page.find("h1")[0][1]
    assert "finished" in page.find("h1")[0][1]
    head = page.find("header")[0][1]
    for words in (
        "make the ant run forward",
        "openai",
        "gpt-5-2025-08-07",
        "3 generations × 4 candidates",
        "491,520 steps",
    ):
        assert words in head, words
    assert {attrs["id"] for attrs, _ in page.find("tbody") if "data-status" in attrs} == set(PLAN)
    assert len(page.find("svg", **{"class": "fitness-chart"})) == 2
    ids = [attrs["id"] for _, attrs, _ in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    for attrs, _ in page.find("a"):
        assert not attrs["href"].startswith("#") or attrs["href"][1:] in ids, attrs["href"]


def test_the_rows_agree_with_the_database(search: Path, page: Page) -> None:
    database = sqlite3.connect(search / "search.db")
    tokens = dict(
        database.execute(
            "SELECT candidate_id, SUM(tokens_in) + SUM(tokens_out) FROM asks JOIN replies USING (ask_id) GROUP BY 1"
        )
    )
    rows = database.execute(
        "SELECT candidate_id, generation, parent_id, status, fitness, repairs FROM candidates"
    ).fetchall()
    database.close()
    assert len(rows) == 12
    for name, generation, parent, status, fitness, repairs in rows:
        row = cells(page, name)
        assert row["Generation"] == str(generation)
        assert row["Parent"] == (parent or "–")
        assert row["Status"] == status.replace("_", " ")
        assert row["Repairs"] == str(repairs)
        assert row["Tokens"] == ("–" if tokens[name] is None else f"{tokens[name]:,}")
        if fitness is not None:
            shown = float(row["Fitness, m/s"].split(" ± ")[0])
            assert shown == pytest.approx(fitness, rel=5e-3)
    assert cells(page, "g02_c03")["Episode"] == "5.25 s"
    assert cells(page, "g02_c03")["Components"] == "3"
    assert cells(page, "g02_c03")["Training"] == "46 s"


def test_failed_has_no_score_and_nan_is_nan(page: Page) -> None:
    for name, (_, status, *_) in PLAN.items():
        if status is not Status.TRAINED:
            assert cells(page, name)["Fitness, m/s"] == "–"
    assert cells(page, "g02_c02")["Fitness, m/s"] == "NaN"
    tips = [text for _, text in page.find("title")]
    assert "g02_c01: failed, no score" in tips
    assert "g02_c02: NaN m/s" in tips


def test_headline_and_score(page: Page) -> None:
    """The headline figures, computed here from the seeds' fitness."""
    mean = {role: statistics.fmean(values) for role, values in FINALS.items()}
    scores = [(value - mean["sparse"]) / abs(mean["human"] - mean["sparse"]) for value in FINALS["final"]]
    told = [float(word) for word in re.findall(r"[\d.]+", page.text("headline"))]
    assert told == pytest.approx([mean["final"], statistics.stdev(FINALS["final"])], abs=0.005)
    told = [float(word) for word in re.findall(r"[\d.]+", page.text("score"))]
    assert told == pytest.approx([statistics.fmean(scores), statistics.stdev(scores)], abs=0.005)
    assert "does better than the human one and does better than the sparse one" in page.text("summary")


def test_each_generation_has_its_sentence(page: Page) -> None:
    (stories,) = page.find("ol", **{"class": "stories"})
    first, second, third = (text for attrs, text in page.find("li") if "Generation " in text)
    assert "g01_c00, reached 1.21 m/s" in first
    assert "improved from 1.21 to 2.31 m/s (+1.10) with g02_c03" in second
    assert "did not improve: g03_c00 reached 2.19 m/s, and the best so far stays g02_c03 with 2.31 m/s" in third
    assert "Generation 4" not in stories[1]


def test_chart_places_dots_by_fitness(page: Page) -> None:
    """Heights in the drawing are linear in fitness: three dots and a line from independent numbers."""
    links = [
        (attrs["data-candidate"], i)
        for i, (tag, attrs, _) in enumerate(page.elements)
        if tag == "a" and "aria-label" in attrs
    ]
    height = {}
    for name, index in reversed(links):  # the wide drawing comes first
        tag, attrs, _ = page.elements[index + 2]
        if tag == "circle":
            height[name] = float(attrs["cy"])
    assert set(height) == {n for n, plan in PLAN.items() if plan[3] is not None and math.isfinite(plan[3])}
    slope = (height["g01_c00"] - height["g02_c03"]) / (2.3128 - 1.2134)
    assert slope > 0
    assert height["g03_c02"] == pytest.approx(height["g02_c03"] + slope * (2.3128 - 1.6031), abs=0.2)
    assert sum(attrs.get("class") == "dot final" for _, attrs, _ in page.elements) == 3 * 2 + 1  # and the legend's
    labels = [text for _, text in page.find("text", **{"class": "label"})]
    assert labels[:6] == ["human", "1.91 m/s", "sparse", "0.674 m/s", "best so far", "2.31 m/s"]


def test_best_program_diff_and_lineage(page: Page) -> None:
    best = page.text("best")
    assert "g01_c00 1.21 first of the line g02_c03 2.31 +5 −4 lines" in best
    assert "FORWARD_SCALE = 1.5" in best
    for line in ("-FORWARD_SCALE = 0.5 # per m/s", "+FORWARD_SCALE = 1.5 # per m/s"):
        assert line in best
    added = [text for _, text in page.find("span", **{"class": "add"})]
    assert "+ sideways = -0.2 * torso_velocity_w[:, 1].abs()" in added


def test_details_hold_everything(page: Page) -> None:
    detail = page.text("g02_c00-more")
    for words in (
        "Program",
        "+FORWARD_SCALE = 1.5",
        "forward_velocity",
        "fitness, m/s",
        "rose to its end",
        "g02_c00_r0",
        "Repair 1 g02_c00_r1",
        "Write a reward for ant-run (g02_c00, attempt 1)",
        "reward & why",
        "3,117 tokens in, 640 out",
    ):
        assert words in detail, words
    assert "line 7, unknown_signal" in page.text("g01_c01-more")
    assert "NaN at iteration 23 (line 9)" in page.text("g02_c01-more")
    assert "27 × not a finite number" in page.text("g02_c01-more")  # iterations 23 to 31, 3 values each
    assert "HTTP 500 after 6 tries" in page.text("g03_c01-more")


def test_failures_are_grouped(page: Page) -> None:
    failures = page.text("failures")
    for words in (
        "refused at check 1",
        "g01_c01 line 7, unknown_signal: 'torso_velocity' is no signal of this task (and 1 more)",
        "nonfinite reward 1",
        "g02_c01 NonfiniteReward: component 'upright_exp' became NaN at iteration 23 (line 9)",
        "no reply 1",
        "upstream <em>timeout</em>",
        "time limit 1",
    ):
        assert words in failures, words


def test_tokens_and_final_runs(search: Path, page: Page) -> None:
    database = sqlite3.connect(search / "search.db")
    asks, inside, outside = database.execute(
        "SELECT COUNT(*), SUM(tokens_in), SUM(tokens_out) FROM asks LEFT JOIN replies USING (ask_id)"
    ).fetchone()
    database.close()
    assert f"all {asks} {asks} ok 14, server 1 {inside:,} {outside:,} 0.144" in page.text("spending-total")
    finals = page.text("finals")
    for values in FINALS.values():
        for value in values:
            assert format_number(value) in finals


def test_video_is_embedded_or_linked(search: Path, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    ((attrs, _),) = page.find("video")
    assert {"controls", "muted", "loop"} <= set(attrs)
    kind, _, data = attrs["src"].partition(",")
    assert kind == "data:video/mp4;base64"
    assert base64.b64decode(data) == (search / "best" / "video.mp4").read_bytes()
    assert "final_s1001): 2.40 m/s" in page.text("video")
    monkeypatch.setattr(report_view, "EMBED_LIMIT_BYTES", 100)
    large = Page(write_report(search).read_text(encoding="utf-8"))
    monkeypatch.undo()
    write_report(search)
    assert not large.find("video")
    assert "best/video.mp4" in [attrs.get("href") for attrs, _ in large.find("a")]


def test_nothing_comes_from_outside(page: Page, html: str) -> None:
    for tag, attrs, _ in page.elements:
        for name in ATTRIBUTES_THAT_LOAD:
            value = attrs.get(name, "")
            assert value.startswith(("#", "data:")) or not value, (tag, name, value[:80])
        assert tag not in ("iframe", "object", "embed", "base", "img")
    style = "".join(page.find("style")[0][1])
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in html


def test_hostile_text_is_only_text(page: Page) -> None:
    """A component's name, a program and a reply that try to break out of script, attribute and element."""
    assert len(page.find("script")) == 1
    assert not page.find("img")
    for _, attrs, _ in page.elements:
        assert not any(name.startswith("on") for name in attrs), attrs
    detail = page.text("g03_c02-more")
    assert f"# {HOSTILE}" in detail
    assert [text for _, text in page.find("span", title=HOSTILE)] == [HOSTILE]


def test_same_records_same_page(search: Path, html: str) -> None:
    assert write_report(search).read_text(encoding="utf-8") == html
    assert not list(search.glob(".report*"))


def empty(folder: Path) -> Archive:
    folder.mkdir(parents=True)
    return Archive(folder / "search.db")


def test_a_search_that_has_only_begun(tmp_path: Path) -> None:
    folder = tmp_path / "ball-balance" / "x"
    empty(folder).close()
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    assert "ball-balance running" in page.find("h1")[0][1]
    assert "no fitness yet" in page.text("headline")
    assert "No candidate has been written yet" in page.text("candidates")
    assert "data:video" not in (folder / "report.html").read_text()


def test_a_search_with_running_trainings(tmp_path: Path) -> None:
    folder = write_search(tmp_path / "run", generations=1, finals=False, video=False, done=False)
    archive = Archive(folder / "search.db")
    for index, status in enumerate((Status.TRAINING, Status.PROPOSED, Status.ACCEPTED)):
        archive.put_candidate(Candidate(f"g02_c0{index}", 2, index, "g01_c00", status, CHILD if index != 1 else None))
    archive.close()
    place = folder / "candidates" / "g02_c00" / "s7"
    place.mkdir(parents=True)
    line = {
        "iteration": 1,
        "wall_s": 2.0,
        "fitness": None,
        "reward_mean": "nan",
        "components": {"speed": {"mean": None}},
    }
    (place / "metrics.jsonl").write_text(json.dumps(line) + '\n{"iteration": 2, "wa')
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    assert "running" in page.find("h1")[0][1]
    assert "Generation 2. 3 of 3 candidates not finished" in page.text("progress")
    assert "In training, iteration 1." in page.text("g02_c00-more")
    assert cells(page, "g02_c00")["Fitness, m/s"] == "–"
    assert "not trained yet" in page.text("summary")
    assert "1.21" in page.text("headline")


def test_generations_without_any_score(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    archive = empty(folder)
    archive.put_candidate(Candidate("g01_c00", 1, 0, None, Status.REFUSED, "def ((", stage="check", error="no"))
    archive.set_meta("state", "stopped")
    archive.close()
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    assert "None of 1 candidate got a fitness; there is no best reward yet." in page.text("progress")
    assert "stopped" in page.find("h1")[0][1]
    assert not page.find("svg", **{"class": "fitness-chart"})


def test_a_damaged_metrics_file_takes_nothing_else_away(tmp_path: Path) -> None:
    folder = write_search(tmp_path / "run", generations=1, finals=False, video=False)
    (folder / "candidates" / "g01_c00" / "s7" / "metrics.jsonl").write_text(
        '{"iteration": 1}\nnonsense\n{"iteration": 3}\n'
    )
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    assert "line 2 is damaged" in page.text("g01_c00-more")
    assert "forward_velocity" in page.text("g01_c02-more")


def test_what_cannot_be_reported_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected a folder with a search\.db"):
        write_report(tmp_path)
    (tmp_path / "search.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(UserError, match="not a database") as caught:
        write_report(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report.html").exists()


def test_a_lower_is_not_called_better_when_human_is_below_sparse(tmp_path: Path) -> None:
    """With human below sparse the score still rises with fitness, and the sentence goes by fitness, not by score."""
    folder = write_search(tmp_path / "run", generations=2, video=False)
    archive = Archive(folder / "search.db")
    for run in archive.runs("human") + archive.runs("sparse"):
        fitness = {"human": 0.5, "sparse": 2.0}[run.role]
        archive.put_run(dataclasses.replace(run, fitness=fitness))
    archive.close()
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    assert float(page.text("score").split(" ± ")[0]) == pytest.approx(
        (statistics.fmean(FINALS["final"]) - 2.0) / 1.5, abs=0.01
    )
    assert "does better than the human one" in page.text("summary")
