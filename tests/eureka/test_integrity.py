"""`eureka doctor --run`: a sound folder is sound, each damage is found and named, and nothing is changed."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from eureka.candidate import Candidate, Status
from eureka.integrity import examine
from eureka.settling import settle
from tasks.errors import UserError
from tests.eureka.command_line import assert_one_line
from tests.eureka.sweeping import Case


@pytest.fixture
def folder(undisturbed_case, tmp_path) -> Path:
    """A copy of a finished search."""
    shutil.copytree(undisturbed_case.folder, tmp_path / "run")
    return tmp_path / "run"


def sql(statement: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "search.db")) as db:
            db.execute(statement)
            db.commit()

    return damage


def text(name: str, old: str, new: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = (folder / name).read_text()
        assert old in content
        (folder / name).write_text(content.replace(old, new))

    return damage


def cut(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return damage


def gone(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def flipped(name: str) -> Callable[[Path], None]:
    """One byte of a checkpoint whose hash is noted in its meta."""

    def damage(folder: Path) -> None:
        import hashlib

        path, meta = folder / name, (folder / name).with_suffix(".json")
        told = {**json.loads(meta.read_text()), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        meta.write_text(json.dumps(told))
        assert [fault for fault in examine(folder) if name in fault.place] == []
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))

    return damage


RUN = "candidates/g01_c00/s0"
DAMAGES: list[tuple[str, Callable[[Path], None], str, str]] = [
    ("settings cut", cut("search.json"), "search.json", "JSON"),
    ("settings of a newer version", text("search.json", '"schema": 3', '"schema": 9'), "search.json", "schema 9"),
    ("no database", gone("search.db"), "search.db", "missing"),
    ("database cut", cut("search.db"), "search.db", "damaged"),
    ("newer database", sql("UPDATE meta SET value='9' WHERE key='schema_version'"), "search.db", "version 9"),
    ("a reply without its ask", sql("DELETE FROM asks WHERE ask_id='g01_c00_r0'"), "search.db", "belongs to no row"),
    ("a lost reply", sql("DELETE FROM replies WHERE ask_id='g01_c01_r0'"), "g01_c01", "reply g01_c01_r0 is missing"),
    ("a lost run", sql("DELETE FROM runs WHERE run_id='g01_c01_s0'"), "g01_c01", "0 of 1 trainings"),
    ("another fitness", sql("UPDATE candidates SET fitness=1.5 WHERE candidate_id='g01_c01'"), "g01_c01", "is 1.5"),
    ("a fitness of a refused one", sql("UPDATE candidates SET fitness=1 WHERE status='refused'"), "g02_c01", "has a fitness"),
    ("another program", sql("UPDATE candidates SET source='x' WHERE candidate_id='g01_c01'"), "g01_c01", "hash"),
    ("an unknown state", sql("UPDATE candidates SET status='odd' WHERE candidate_id='g01_c01'"), "search.db", "odd"),
    ("an open candidate", sql("UPDATE candidates SET status='training', fitness=NULL WHERE candidate_id='g02_c00'"),
     "done", "not settled"),
    ("a lost candidate", sql("DELETE FROM candidates WHERE candidate_id='g02_c01'"), "done", "3 of 4 candidates"),
    ("a folder outside", sql("UPDATE runs SET folder='../..' WHERE run_id='human_s1000'"), "human_s1000", "outside"),
    ("another result", text(f"{RUN}/result.json", '"status": "ok"', '"status": "error"'), f"{RUN}/result.json", "not the result"),
    ("result cut", cut(f"{RUN}/result.json"), "g01_c00_s0", "not valid JSON"),
    ("request cut", cut(f"{RUN}/request.json"), "g01_c00_s0", "not valid JSON"),
    ("another's request", text(f"{RUN}/request.json", "g01_c00_s0", "g01_c01_s0"), "g01_c00_s0", "request is for"),
    ("no checkpoint", gone(f"{RUN}/model_000004.pt"), f"{RUN}/model_000004.pt", "missing"),
    ("checkpoint cut", cut(f"{RUN}/model_000004.pt"), f"{RUN}/model_000004.pt", "hash"),
    ("meta cut", cut(f"{RUN}/model_000004.json"), f"{RUN}/model_000004.pt", "not valid JSON"),
    ("a flipped bit", flipped(f"{RUN}/model_000004.pt"), f"{RUN}/model_000004.pt", "hash"),
    ("best policy cut", cut("best/model.pt"), "best/model.pt", "hash"),
    ("best program of another", text("best/reward.py", "pull", "push"), "best/reward.py", "g01_c00"),
    ("no page", gone("report.html"), "report.html", "missing"),
    ("page cut", cut("report.html"), "report.html", "cut off"),
    ("marker of another", text("done", "g01_c00", "g02_c00"), "done", "g02_c00"),
    ("marker cut", cut("done"), "done", "JSON"),
    ("a lost final", sql("DELETE FROM runs WHERE role='final'"), "done", "0 of 1 final"),
]  # fmt: skip


def test_a_finished_search_is_sound(folder):
    assert examine(folder) == []


@pytest.mark.parametrize(
    ("damage", "place", "words"), [case[1:] for case in DAMAGES], ids=[case[0] for case in DAMAGES]
)
def test_each_damage_is_named(folder, damage, place, words):
    """One line: where, what, and the way out; and not a byte changes."""
    damage(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    faults = examine(folder)
    found = [fault for fault in faults if fault.place == place and words in fault.what]
    assert found, faults
    assert all(fault.way_out for fault in faults)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_the_command_tells_by_its_exit_code(eureka, folder):
    code, out, _ = eureka("doctor", "--run", folder)
    assert (code, out.strip()) == (0, f"{folder} is sound")
    cut("report.html")(folder)
    code, out, _ = eureka("doctor", "--run", folder)
    assert code == 3 and out.count("\n") == 2 and "eureka report" in out and "1 faults" in out
    code, out, _ = eureka("doctor", "--run", folder, "--json")
    told = json.loads(out)
    assert code == 3 and told["sound"] is False and [fault["place"] for fault in told["faults"]] == ["report.html"]
    code, _, err = eureka("doctor", "--run", folder / "nowhere")
    assert_one_line(code, err, "nowhere")
    code, _, err = eureka("doctor", "--json")
    assert_one_line(code, err, "--run")


def test_the_folder_of_a_killed_search_is_looked_at_and_not_changed(driver):
    """Its database has a log: looking folds nothing in and makes nothing."""
    case = Case(driver, "killed, then examined")
    assert case.run(step="between finals") != 0
    (case.folder / "search.db-shm").unlink()
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in case.folder.rglob("*") if path.is_file()}
    assert any(path.name == "search.db-wal" and data for path, (data, _) in before.items())
    assert examine(case.folder) == []
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in case.folder.rglob("*") if path.is_file()}
    assert after == before


def test_a_folder_that_is_no_search_is_said(tmp_path):
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="expected the folder of a search"):
            examine(place)


def test_a_leader_whose_further_seed_fails_has_no_fitness(tmp_path):
    """It had one from its first seed; a failed candidate has none, and doctor would say so."""
    leader = Candidate("g01_c00", 1, 0, status=Status.TRAINED, fitness=2.0, fitness_std=0.5)
    good = {"status": "ok", "fitness": 2.0, "fitness_std": 0.5, "error": None, "run_dir": tmp_path}
    bad = {"status": "diverged", "fitness": None, "fitness_std": None, "error": {"message": "x"}, "run_dir": tmp_path}
    settled = settle(leader, [good, bad])
    assert (settled.status, settled.fitness, settled.fitness_std) == (Status.FAILED, None, None)
