"""Stages out of a file: what is wrong in one, what is run, what is resumed, and what is never run again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eureka.cli import main
from eureka.pipeline import RESUMABLE, STATE, read_pipeline, run_pipeline
from tasks.errors import UserError
from tests.distill.students import COMMANDS

FILE = """
[[stage]]
name = "ant"
command = "train"
args = ["ant-command", "--iterations", 3]

[[stage]]
name = "student"
command = "distill"
args = ["{ant}", "--set", "x={ant}/y"]

[[stage]]
name = "tour"
command = "act"
args = ["--task", "ant-tour", "--policy", "{student}"]
"""


class Commands:
    """In place of the command line: makes the folder that it is told, with the files of a beginning, and what is told."""

    def __init__(self, codes: dict[str, int | BaseException] | None = None) -> None:
        self.called: list[list[str]] = []
        self.codes = codes or {}

    def __call__(self, words: list[str]) -> int:
        self.called.append(words)
        place = Path(words[words.index("--out" if "--out" in words else "--resume") + 1])
        place.mkdir(parents=True, exist_ok=True)
        if words[0] in RESUMABLE:
            (place / RESUMABLE[words[0]]).write_text("{}")
        end = self.codes.get(place.name, 0)
        if isinstance(end, BaseException):
            raise end
        if words[0] == "act":
            (place / "result.json").write_text(json.dumps({"tours": [1, 2], "successes": 1}))
            (place / "page.html").write_text("tour")
        return end


@pytest.fixture
def stages(tmp_path):
    (tmp_path / "p.toml").write_text(FILE)
    return read_pipeline(tmp_path / "p.toml")


def quiet(line: str) -> None:
    """Says nothing."""


def test_stages_run_in_order_with_each_others_folders(stages, tmp_path):
    commands, out = Commands({"tour": 1}), tmp_path / "out"
    assert run_pipeline(stages, out, commands, quiet) == 0, "a failed tour is a figure"
    assert commands.called == [
        ["train", "ant-command", "--iterations", "3", "--out", str(out / "ant")],
        ["distill", str(out / "ant"), "--set", f"x={out / 'ant'}/y", "--out", str(out / "student")],
        ["act", "--task", "ant-tour", "--policy", str(out / "student"), "--out", str(out / "tour")],
    ]
    page = (out / "pipeline.html").read_text()
    assert page.count(">done<") == 3 and 'href="tour/page.html"' in page and "1 of 2 tours done" in page
    again = Commands()
    assert run_pipeline(stages, out, again, quiet) == 0 and again.called == []


def test_a_stage_that_failed_stops_and_goes_on_where_it_was(stages, tmp_path):
    out = tmp_path / "out"
    assert run_pipeline(stages, out, Commands({"student": 2}), quiet) == 2
    assert "failed, exit code 2" in (out / "pipeline.html").read_text()
    commands = Commands()
    assert run_pipeline(stages, out, commands, quiet) == 0
    assert [words[:2] for words in commands.called] == [["distill", "--resume"], ["act", "--task"]]


def test_what_cannot_resume_begins_in_a_fresh_folder_and_the_old_one_stays(stages, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(stages, out, Commands({"tour": KeyboardInterrupt()}), quiet)
    (out / "tour" / "events.jsonl").write_text("half")
    commands = Commands()
    assert run_pipeline(stages, out, commands, quiet) == 0
    assert commands.called == [
        ["act", "--task", "ant-tour", "--policy", str(out / "student"), "--out", str(out / "tour")]
    ]
    assert (out / "tour.1" / "events.jsonl").read_text() == "half" and not (out / "tour" / "events.jsonl").exists()


def test_a_stage_that_is_done_may_not_be_changed(stages, tmp_path):
    out = tmp_path / "out"
    run_pipeline(stages, out, Commands({"student": 2}), quiet)
    for text, said in ((FILE.replace("3]", "4]"), "was changed"), (FILE.replace("ant", "bee"), "is gone")):
        (tmp_path / "p.toml").write_text(text)
        with pytest.raises(UserError, match=f"stage 'ant' was done in .* {said}"):
            run_pipeline(read_pipeline(tmp_path / "p.toml"), out, Commands(), quiet)
    (tmp_path / "p.toml").write_text(FILE.replace("--set", "--other"))  # of the stage that failed
    assert run_pipeline(read_pipeline(tmp_path / "p.toml"), out, Commands(), quiet) == 0
    (out / "pipeline.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        run_pipeline(stages, out, Commands(), quiet)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[[stage]]", "[stage", "is no TOML"),
        (FILE, "", "has no stage"),
        (FILE, "x = 1\n" + FILE, "unknown 'x'"),
        ('"train"', '"tain"', "stage 1: its command is 'tain'.*Did you mean 'train'"),
        ('"student"', '"ant"', "stage 2: the name 'ant' is taken"),
        ('"tour"', '"../tour"', "stage 3: its name is '../tour'"),
        ("{student}", "{studnt}", "stage 3 reads '{studnt}', which is no stage before it. Did you mean 'student'"),
        ('"{ant}",', '"--out", "x",', "stage 2: --out is the pipeline's to say"),
        ('args = ["--task"', 'words = ["--task"', "stage 3 has name, command, words"),
        ('args = ["ant-command", "--iterations", 3]', 'args = "ant-command"', "stage 1: args is ant-command"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_the_stage(tmp_path, old, new, said):
    file = tmp_path / "p.toml"
    assert old in FILE
    file.write_text(FILE.replace(old, new, 1))
    with pytest.raises(UserError, match=said) as caught:
        read_pipeline(file)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="cannot read the pipeline"):
        read_pipeline(tmp_path / "none.toml")


REWARD = """
def compute_reward(mass_velocity: Tensor, command: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    error_l2 = -torch.square(mass_velocity - command)[:, 0]
    return error_l2, {"error_l2": error_l2}
"""
TRUE_PATH = f"""
[[stage]]
name = "expert"
command = "train"
args = ["{COMMANDS}", "--reward", "reward.py", "--iterations", 2, "--num-envs", 8, "--set", "eval_episodes=2", "--threads", 1]

[[stage]]
name = "student"
command = "distill"
args = ["{{expert}}", "--preset", "toy", "--steps", 8, "--rounds", 1, "--set", "episodes=2", "--set", "round_episodes=2",
        "--set", "batch_size=8", "--set", "save_steps=2", "--threads", 1, "--evaluate", 0]

[[stage]]
name = "told"
command = "act"
args = ["--task", "{COMMANDS}", "--policy", "{{student}}", "--planner", "script", "--script", "words.txt", "--speed", 0]
"""


def test_the_commands_themselves_from_reward_to_words(tmp_path, monkeypatch, capsys):
    """A training, a distillation of it that is cut off and goes on, and its student told by a script."""
    monkeypatch.chdir(tmp_path)
    Path("reward.py").write_text(REWARD)
    Path("words.txt").write_text("0.3 go right\n0.3 go left\n")
    Path("p.toml").write_text(TRUE_PATH)
    words = ["pipeline", "p.toml", "--out", "out"]

    with monkeypatch.context() as patched:
        patched.setattr("distill.train.Distillation._finish", interrupted)
        assert main(words) == 130, capsys.readouterr().err
    begun = {path.name: path.stat().st_mtime_ns for path in Path("out/student").iterdir()}
    assert RESUMABLE["distill"] in begun and any(name.startswith("state_") for name in begun)
    assert (Path("out/expert") / RESUMABLE["train"]).is_file()

    assert main(words) == 0, capsys.readouterr().err
    err = capsys.readouterr().err
    assert "expert: done before" in err and "eureka distill --resume" in err
    assert Path("out/student/distill.json").stat().st_mtime_ns == begun["distill.json"]
    assert not Path("out/student.1").exists(), "what was learnt already is learnt again"
    assert all(row["done"] for row in json.loads(Path("out", STATE).read_text())["stages"].values())
    page = Path("out/pipeline.html").read_text()
    assert page.count(">done<") == 3 and 'href="told/page.html"' in page
    events = [json.loads(line) for line in Path("out/told/tour_000/events.jsonl").read_text().splitlines()]
    assert [event["instruction"] for event in events if event["kind"] == "told"][:2] == ["go right", "go left"]


def interrupted(*_: object) -> None:
    """Ctrl-C."""
    raise KeyboardInterrupt
