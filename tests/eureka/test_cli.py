"""The command line: its frame, `tasks`, `show`, `check` and `doctor`; every kind of bad input, and no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eureka import cli
from tasks import registry
from tests.eureka.command_line import BROKEN, GOOD, HUMAN, ROOT, SLIDER, assert_one_line

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
            command, input=text, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
        )

    done = run("show", "quadcoptr-hover")
    assert (done.returncode, done.stdout) == (2, "")
    assert_one_line(2, done.stderr, "Did you mean 'quadcopter-hover'?")
    done = run("check", "-", "--task", SLIDER, text=GOOD.replace("mass_position", "mass"))
    assert done.returncode == 3 and "line 3" in done.stdout and not done.stderr


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
