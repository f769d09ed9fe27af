"""The command line: every command, every kind of bad input, exit codes, and no traceback."""

from __future__ import annotations

import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from eureka import cli
from eureka.candidate import Candidate, Status
from eureka.commands.places import parse_settings
from eureka.commands.progress import LiveListener, ProgressListener, last_metrics
from eureka.search_config import SearchConfig
from rl import render
from tasks import registry
from tasks.errors import UserError

ROOT = Path(__file__).parents[2]
SLIDER = str(ROOT / "tests" / "data" / "slider.py")
HUMAN = ROOT / "tests" / "data" / "slider_human.py"

GOOD = "import torch\n\ndef compute_reward(mass_position):\n    total = -mass_position[:, 0]\n    return total, {'a': total}\n"
BROKEN = {
    "syntax": (GOOD.replace("[:, 0]", "[:, 0"), 4, "not valid Python"),
    "unknown signal": (GOOD.replace("mass_position", "mass_postion"), 3, "Did you mean 'mass_position'?"),
    "two entry points": (GOOD + GOOD.replace("import torch\n", ""), 8, "2 times"),
    "no entry point": (GOOD.replace("compute_reward", "reward"), 0, "no function named compute_reward"),
}


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """A folder of its own, and no endpoint from outside."""
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def eureka(capsys):
    """Runs a command in this process: its exit code, what it printed, and its complaint."""

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def assert_one_line(code: int, err: str, *words: str) -> None:
    """A refusal: exit code 2 and one line with all of the words."""
    assert code == 2, err
    assert err.startswith("eureka: ") and err.count("\n") == 1, err
    for word in words:
        assert word in err, err


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


# -- the frame


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_command(eureka, words):
    code, out, _ = eureka(*words)
    assert code == 0
    for name in cli.COMMANDS:
        assert f"  {name} " in out


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_each_command_explains_itself(eureka, name):
    code, out, _ = eureka(name, "--help")
    assert code == 0 and f"usage: eureka {name}" in out


@pytest.mark.parametrize(
    ("words", "hints"),
    [
        (["taks"], ["Did you mean 'tasks'?"]),
        (["serach", "ant-run"], ["Did you mean 'search'?"]),
        (["show", "ant-rum"], ["unknown task 'ant-rum'", "Did you mean 'ant-run'?"]),
        (["show", "no/such_task.py"], ["no task file"]),
        (["show"], ["TASK", "missing"]),
        (["show", "ant-run", "twice"], ["'twice'"]),
        (["tasks", "--jsn"], ["--jsn", "Did you mean '--json'?"]),
        (["check", "x.py"], ["--task", "missing"]),
        (["search"], ["needs a task"]),
        (["train"], ["needs a task"]),
        (["search", "ant-run", "-k", "two"], ["'two'"]),
        (["search", "ant-run", "-k", "0"], ["samples is 0", "at least 1"]),
        (["search", "ant-run", "-n", "-1"], ["generations is -1"]),
        (["search", "ant-run", "--iterations", "0"], ["iterations is 0"]),
        (["search", "ant-run", "--num-envs", "-8"], ["num_envs is -8"]),
        (["search", "ant-run", "--slots", "0"], ["--slots is 0"]),
        (["search", "ant-run", "--max-tokens-total", "-5"], ["max_tokens_total is -5"]),
        (["search", "ant-run", "--temperature", "-1", "--designer", "evolution"], ["--temperature is -1"]),
        (["search", "ant-run", "--time-limit-s", "0"], ["time_limit_s is 0"]),
        (["search", "ant-run", "--designer", "evoltion"], ["Did you mean 'evolution'?"]),
        (["search", "ant-run", "--set", "ppo.gama=0.9"], ["ppo.gama", "Did you mean 'gamma'?"]),
        (["search", "ant-run", "--set", "iterations"], ["NAME=VALUE"]),
        (["search", "ant-run", "--iterations", "3", "--set", "iterations=4"], ["twice"]),
        (["search", "ant-run", "--designer", "replay"], ["replay"]),
        (["search", "--resume", "nowhere"], ["no folder nowhere"]),
        (["train", "--resume", "nowhere"], ["no folder nowhere"]),
        (["train", "ant-run", "--reward", "humn"], ["Did you mean 'human'?"]),
        (["train", "ant-run", "--seed", "-1"], ["--seed is -1"]),
        (["evaluate", "nowhere"], ["no run or checkpoint"]),
        (["play", "nowhere"], ["no run or checkpoint"]),
        (["export", "."], ["holds no checkpoint"]),
        (["report", "nowhere"], ["nowhere"]),
        (["report", "."], ["search.json"]),
    ],
)
def test_bad_input_is_one_line_and_makes_no_folder(eureka, words, hints):
    code, _, err = eureka(*words)
    assert_one_line(code, err, *hints)
    assert not list(Path().iterdir())


def test_an_unexpected_error_is_one_line_unless_debug(eureka, monkeypatch):
    monkeypatch.setattr(registry, "names", lambda: 1 / 0)
    code, _, err = eureka("tasks")
    assert code == 1 and err.count("\n") == 1 and "ZeroDivisionError" in err and "--debug" in err
    code, _, err = eureka("tasks", "--debug")
    assert code == 1 and "Traceback" in err


def test_ctrl_c_is_one_line(eureka, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(registry, "names", interrupt)
    code, _, err = eureka("tasks")
    assert (code, err) == (130, "eureka: interrupted.\n")


def test_as_a_process(tmp_path):
    """The exit code reaches the shell, and nothing but one line reaches stderr."""

    def run(*words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "eureka.cli", *words]
        return subprocess.run(
            command, input=text, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )

    done = run("show", "quadcoptr-hover")
    assert (done.returncode, done.stdout) == (2, "")
    assert_one_line(2, done.stderr, "Did you mean 'quadcopter-hover'?")
    done = run("check", "-", "--task", SLIDER, text=GOOD.replace("mass_position", "mass"))
    assert done.returncode == 3 and "line 3" in done.stdout and not done.stderr
    done = run("search", "ant-run", "--designer", "openai", "--model", "x")
    assert_one_line(done.returncode, done.stderr, "OPENAI_API_KEY")
    assert not (tmp_path / "runs").exists()


# -- tasks, show, check


def test_tasks_lists_all_with_their_sizes(eureka):
    code, out, _ = eureka("tasks", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0 and list(rows) == registry.names()
    assert (rows["quadcopter-hover"]["num_actions"], rows["ant-run"]["num_actions"]) == (4, 8)
    assert rows["ant-run"]["fitness_unit"] == "m/s"
    code, out, _ = eureka("tasks")
    assert code == 0 and all(name in out for name in rows)


@pytest.mark.parametrize("name", [*registry.names(), SLIDER])
def test_show_prints_the_prompt_of_every_task(eureka, name):
    """The messages a designer gets: what to achieve, every signal, the rules; not how success is measured."""
    code, out, _ = eureka("show", name)
    task = registry.make(name)
    assert code == 0 and "## system" in out and "## user" in out
    assert task.instruction in out and task.action_doc in out
    assert all(signal.name in out for signal in task.signal_table)
    assert "def fitness" not in out and task.fitness_doc not in out
    code, out, _ = eureka("show", name, "--json")
    assert [message["role"] for message in json.loads(out)] == ["system", "user"]


def test_check_accepts_a_program_and_a_raw_reply(eureka):
    Path("reply.md").write_text(f"I think so:\n\n```python\n{HUMAN.read_text()}```\nGood luck.")
    for file in (HUMAN, "reply.md"):
        code, out, _ = eureka("check", file, "--task", SLIDER)
        assert code == 0 and "accepted" in out and "position_l2" in out
    code, out, _ = eureka("check", "reply.md", "--task", SLIDER, "--json")
    verdict = json.loads(out)
    assert code == 0 and verdict["accepted"] and verdict["components"] == ["position_l2", "velocity_l2"]


@pytest.mark.parametrize("kind", sorted(BROKEN))
def test_check_refuses_with_line_and_rule(eureka, kind):
    text, line, words = BROKEN[kind]
    Path("reward.py").write_text(text)
    code, out, _ = eureka("check", "reward.py", "--task", SLIDER, "--json")
    verdict = json.loads(out)
    assert code == 3 and verdict["accepted"] is False
    (problem,) = verdict["problems"]
    assert problem["line"] == line and words in problem["message"] and problem["rule"]
    code, out, _ = eureka("check", "reward.py", "--task", SLIDER)
    assert code == 3 and words in out and "rule:" in out


def test_check_names_a_file_that_is_not_there(eureka):
    Path("reward.py").write_text(GOOD)
    code, _, err = eureka("check", "rewrd.py", "--task", SLIDER)
    assert_one_line(code, err, "Did you mean 'reward.py'?")
    code, _, err = eureka("check", ".", "--task", SLIDER)
    assert_one_line(code, err, "folder")
    Path("binary.py").write_bytes(b"\xff\xfe\x00")
    code, _, err = eureka("check", "binary.py", "--task", SLIDER)
    assert_one_line(code, err, "UTF-8")


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


def test_doctor_finds_nothing_broken_here(eureka, monkeypatch):
    """Every subject has its line; the key is not among them, an endpoint that is not there is."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-this-is-secret")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://name:word@127.0.0.1:9/v1")
    code, out, _ = eureka("doctor")
    assert code == 0 and "everything essential works" in out
    for subject in ("python", "packages", "physics", "gate", "cpu", "gpu", "video", "ffmpeg", "llm", "runs"):
        assert any(line[4:].startswith(subject) for line in out.splitlines()), subject
    assert "cannot be reached" in out and "OPENAI_BASE_URL" in out
    assert "secret" not in out and "word" not in out.replace("words", "")


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


def _listen(listener: ProgressListener, folder: Path) -> None:
    """Generation 1 of 2 with two samples: one is refused, one trains to its middle."""
    listener.generation_started(1, 2)
    listener.judged(Candidate("g01_c00", 1, 0, status=Status.REFUSED, error="Broken.\n\n1. line 3, R101: [bold]no[/]"))
    listener.run_started("g01_c01_s0", folder, 10)
    (folder / "metrics.jsonl").write_text(
        '{"iteration": 4, "fitness": 1.5}\n{"iteration": 5, "fitness": null}\n{"iteration": 6, "fit'
    )
    listener.tick()


def test_plain_progress_tells_what_happened(tmp_path):
    out = io.StringIO()
    listener = ProgressListener(
        SearchConfig(SLIDER, samples=2, generations=2, final_seeds=1), "m", Console(file=out, width=200)
    )
    _listen(listener, tmp_path)
    assert listener.runs["g01_c01_s0"].done == 5
    listener._training_s, listener._since = 50.0, None  # half a training took 50 s
    # Ahead: half of this one, two of generation 2, three of the comparison, 100 s each.
    assert listener.left_s() == pytest.approx(5.5 * 100)
    listener.run_ended("g01_c01_s0", "ok", 2.0)
    best = Candidate("g01_c01", 1, 1, status=Status.TRAINED, fitness=2.0)
    listener.generation_ended(1, best, True)
    assert "best 2 m (g01_c01)" in listener.headline()
    text = out.getvalue()
    for words in ("generation 1 of 2", "g01_c00: refused (line 3, R101: [bold]no[/])", "fitness 2 m", "now g01_c01"):
        assert words in text


def test_live_progress_draws_a_bar_for_each_running_training(tmp_path):
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120)
    listener = LiveListener(SearchConfig(SLIDER, samples=2, generations=2), "m", console)
    _listen(listener, tmp_path)
    assert "g01_c01_s0" in out.getvalue() and "5/10" in out.getvalue()
    listener.run_ended("g01_c01_s0", "reward_error", None)
    assert "reward_error" in out.getvalue()
    listener.close()


def test_the_last_whole_line_of_a_long_file_is_found(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert last_metrics(path) is None
    path.write_text("".join(json.dumps({"iteration": i, "pad": "x" * 500}) + "\n" for i in range(1000)) + '{"iter')
    assert last_metrics(path) == {"iteration": 999, "pad": "x" * 500}
