"""The command line: `train`, `evaluate`, `play`, `export`, `search` and `report` on the smallest task."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from pathlib import Path

import pytest

from eureka import cli
from eureka.commands.places import parse_settings
from rl import render
from tasks.errors import UserError
from tests.eureka.command_line import BROKEN, GOOD, SLIDER, assert_one_line
from tests.eureka.in_process import train_here


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    """A training by `eureka train`."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert cli.main(["train", SLIDER, "--iterations", "3", "--out", str(folder), "--json"]) == 0
    return folder


@pytest.fixture(scope="module")
def search_folder(tmp_path_factory) -> Path:
    """A finished search by `eureka search`."""
    folder = tmp_path_factory.mktemp("searched") / "search"
    options = ["-k", "2", "-n", "1", "--final-seeds", "0", "--no-video", "--designer", "evolution", "--slots", "2"]
    assert cli.main(["search", SLIDER, *options, "--out", str(folder)]) == 0
    return folder


# -- train and what follows


@pytest.mark.parametrize("kind", sorted(BROKEN))
def test_train_refuses_a_broken_reward_before_anything_starts(eureka, kind):
    text, line, words = BROKEN[kind]
    Path("reward.py").write_text(text)
    code, _, err = eureka("train", SLIDER, "--reward", "reward.py", "--out", "run")
    assert_one_line(code, err, words, "eureka check", *([f"line {line}"] if line else []))
    assert not Path("run").exists()


def test_train_takes_a_reward_file_and_settings(eureka):
    Path("reward.py").write_text(GOOD)
    options = ["--iterations", "2", "--set", "ppo.gamma=0.9", "--set", "ppo.hidden_dims=8,4", "--seed", "5"]
    code, out, err = eureka("train", SLIDER, "--reward", "reward.py", "--out", "run", *options)
    assert code == 0 and "fitness" in out and "iteration 2/2" in err
    request = json.loads(Path("run/request.json").read_text())
    assert request["seed"] == 5 and request["reward_origin"] == "reward.py"
    assert request["config"]["iterations"] == 2
    assert request["config"]["ppo"]["gamma"] == 0.9 and request["config"]["ppo"]["hidden_dims"] == [8, 4]
    code, _, err = eureka("train", SLIDER, "--out", "run")
    assert_one_line(code, err, "already", "--resume")


def test_train_goes_on_where_it_was(eureka, run_folder):
    """A finished training resumed does nothing new; settings cannot be slipped in."""
    copy = Path("copy")
    shutil.copytree(run_folder, copy)
    before = json.loads((copy / "result.json").read_text())
    code, out, _ = eureka("train", "--resume", copy, "--json")
    assert code == 0 and json.loads(out)["fitness"] == before["fitness"]
    code, _, err = eureka("train", SLIDER, "--resume", copy)
    assert_one_line(code, err, "--resume")
    (copy / "request.json").write_text('{"schema": 99}')
    code, _, err = eureka("train", "--resume", copy)
    assert_one_line(code, err, "version")


def test_evaluate_gives_the_same_figure_for_run_and_checkpoint(eureka, run_folder):
    for place in (run_folder, run_folder / "model_000003.pt"):
        code, out, _ = eureka("evaluate", place, "--episodes", 8, "--json")
        found = json.loads(out)
        assert code == 0 and len(found["per_episode"]) == 8
        # The training's own evaluation had the same seed and number of episodes.
        assert found["fitness"] == pytest.approx(json.loads((run_folder / "result.json").read_text())["fitness"])
    code, _, err = eureka("evaluate", run_folder, "--episodes", 0)
    assert_one_line(code, err, "--episodes is 0")
    code, _, err = eureka("evaluate", run_folder / "request.json")
    assert_one_line(code, err, "no checkpoint")


def test_a_damaged_checkpoint_is_named(eureka, run_folder):
    shutil.copytree(run_folder, "copy")
    Path("copy/model_000003.pt").write_bytes(b"nonsense")
    code, _, err = eureka("evaluate", "copy")
    assert_one_line(code, err, "damaged")


def test_an_older_checkpoint_is_not_taken_in_silence(eureka, run_folder):
    """The newest one is damaged: the figure is of the one before, and standard error says so."""
    shutil.copytree(run_folder, "two")
    for suffix in (".pt", ".json"):
        shutil.copyfile(f"two/model_000003{suffix}", f"two/model_000002{suffix}")
    Path("two/model_000003.pt").write_bytes(b"nonsense")
    code, out, err = eureka("evaluate", "two")
    assert code == 0 and "over" in out, err
    assert "model_000003.pt" in err and "damaged" in err and "passed over" in err


def test_play_films(eureka, run_folder):
    if render.probe_renderer() is None:
        pytest.skip(render.no_renderer_line())
    code, out, _ = eureka("play", run_folder, "--out", "film.mp4", "--seconds", "0.3")
    assert code == 0 and "film.mp4" in out and Path("film.mp4").stat().st_size > 500


def test_play_without_a_renderer_says_what_to_install(eureka, run_folder, monkeypatch):
    monkeypatch.setattr("rl.video.probe_renderer", lambda: None)
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    code, out, err = eureka("play", run_folder, "--out", "film.mp4")
    assert code == 0 and not err and "libosmesa6" in out and not Path("film.mp4").exists()


def test_viewer_needs_a_display(eureka, run_folder, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    code, _, err = eureka("play", run_folder, "--viewer")
    assert_one_line(code, err, "no display", "without --viewer")


def test_export_writes_and_reports(eureka, run_folder):
    code, out, _ = eureka("export", run_folder, "--out", "policy.onnx", "--json")
    assert code == 0 and json.loads(out)["max_abs_diff"] < 1e-4 and Path("policy.onnx").is_file()


# -- search


def test_search_leaves_a_whole_folder(search_folder):
    assert (search_folder / "done").is_file() and (search_folder / "report.html").is_file()
    config = json.loads((search_folder / "search.json").read_text())
    assert (config["samples"], config["generations"], config["task"]) == (2, 1, SLIDER)
    assert config["designer"]["designer"] == "evolution"


def test_a_finished_search_resumes_to_its_result(eureka, search_folder):
    before = {path: path.stat().st_mtime_ns for path in search_folder.rglob("result.json")}
    code, out, _ = eureka("search", "--resume", search_folder)
    assert code == 0 and "best reward: g01_c0" in out and "report.html" in out
    assert before and {path: path.stat().st_mtime_ns for path in before} == before, "nothing is trained again"


def test_a_search_is_not_started_over_another_and_not_changed_by_resuming(eureka, search_folder):
    code, _, err = eureka("search", SLIDER, "--designer", "evolution", "--out", search_folder)
    assert_one_line(code, err, "already", "--resume")
    code, _, err = eureka("search", "--resume", search_folder, "-k", 5, "--seed", 3)
    assert_one_line(code, err, "--samples, --seed", "cannot change")


def _search_json(folder: Path) -> None:
    data = json.loads((folder / "search.json").read_text())
    (folder / "search.json").write_text(json.dumps({**data, "schema": 99}))


def _database_version(folder: Path) -> None:
    with sqlite3.connect(folder / "search.db") as database:
        database.execute("UPDATE meta SET value='99' WHERE key='schema_version'")
    database.close()


def _damage(folder: Path) -> None:
    for name in ("search.db-wal", "search.db-shm"):
        (folder / name).unlink(missing_ok=True)
    (folder / "search.db").write_bytes(b"SQLite format 3\x00" + b"\x07" * 9000)


@pytest.mark.parametrize(
    ("harm", "words"), [(_search_json, "version"), (_database_version, "version"), (_damage, "damaged")]
)
@pytest.mark.parametrize("command", [["search", "--resume"], ["train", SLIDER, "--reward"]])
def test_a_folder_of_another_version_or_damaged_is_left_alone(eureka, search_folder, harm, words, command):
    """One line says so, and not a byte of what is there changes."""
    folder = Path("copy")
    shutil.copytree(search_folder, folder)
    harm(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    code, _, err = eureka(*command, folder)
    assert_one_line(code, err, words)
    assert {path: path.read_bytes() for path in before} == before


def test_the_report_is_written_anew(eureka, search_folder):
    shutil.copytree(search_folder, "copy")
    Path("copy/report.html").unlink()
    code, out, _ = eureka("report", "copy")
    assert code == 0 and out.strip() == "copy/report.html"
    # The page is a function of the records.
    assert Path("copy/report.html").stat().st_size > 5000


def test_a_search_can_be_recorded_and_run_again(eureka, search_folder, monkeypatch):
    code, out, _ = eureka("record", search_folder, "kept")
    assert code == 0 and out.strip() == "kept"
    replies = [path.stem for path in sorted(Path("kept/replies").glob("*.md"))]
    assert replies == ["g01_c00_r0", "g01_c01_r0"]
    train_here(monkeypatch)
    small = ["-k", 2, "-n", 1, "--final-seeds", 0, "--no-video", "--slots", 2]
    code, _, _ = eureka("search", SLIDER, "--designer", "replay", "--replay-from", "kept", *small, "--out", "again")
    assert code == 0
    assert [path.read_text() for path in sorted(Path("again").rglob("reward.py"))] == [
        path.read_text() for path in sorted(search_folder.rglob("reward.py"))
    ]
    for wrong in (["nowhere", "kept2"], [SLIDER, "kept2"]):
        code, _, err = eureka("record", *wrong)
        assert_one_line(code, err, str(wrong[0]))


def test_the_best_of_a_search_can_be_trained_measured_and_exported(eureka, search_folder):
    code, out, _ = eureka("train", SLIDER, "--reward", search_folder, "--iterations", 2, "--out", "run", "--json")
    assert code == 0 and json.loads(out)["status"] == "ok"
    assert json.loads(Path("run/request.json").read_text())["reward_origin"].startswith(f"{search_folder}:g01_c0")
    code, out, _ = eureka("evaluate", search_folder, "--episodes", 4)
    assert code == 0 and "best/model.pt" in out
    code, _, err = eureka("train", "cartpole-balance", "--reward", search_folder)
    assert_one_line(code, err, "'slider'", "'cartpole-balance'")


def test_an_endpoint_is_checked_before_anything_is_made(eureka, monkeypatch):
    """No key, no model, nobody there: the setting is named, and no folder appears."""
    code, _, err = eureka("search", SLIDER, "--designer", "openai", "--model", "m")
    assert_one_line(code, err, "OPENAI_API_KEY")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    code, _, err = eureka("search", SLIDER, "--designer", "openai")
    assert_one_line(code, err, "--model")
    there = ["--model", "m", "--base-url", "http://127.0.0.1:9/v1", "--retries", "0"]
    code, _, err = eureka("search", SLIDER, "--designer", "openai", *there)
    assert_one_line(code, err, "127.0.0.1:9")
    assert "secret" not in err and not list(Path().iterdir())


# -- parts


def test_settings_are_read_as_what_they_are():
    pairs = ["num_envs=256", "ppo.gamma=0.98", "ppo.hidden_dims=[64, 64]", "ppo.schedule=fixed"]
    assert parse_settings(pairs) == {
        "num_envs": 256,
        "ppo": {"gamma": 0.98, "hidden_dims": [64, 64], "schedule": "fixed"},
    }
    for bad in (["a"], ["=1"], ["a=1", "a=2"], ["a=1", "a.b=2"]):
        with pytest.raises(UserError):
            parse_settings(bad)
