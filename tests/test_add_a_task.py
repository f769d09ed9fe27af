"""docs/add-a-task.md, followed word for word: its files are written, its commands run, its claims checked."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from eureka import cli
from tests.eureka.in_process import train_here

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "add-a-task.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"(?:^`(?P<name>[\w.]+)`:\n\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
FILES = {m["name"]: m["text"] for m in BLOCK.finditer(PAGE) if m["name"]}
COMMANDS = [line for m in BLOCK.finditer(PAGE) if m["kind"] == "sh" for line in m["text"].splitlines()]
PYPROJECT = next(tomllib.loads(m["text"]) for m in BLOCK.finditer(PAGE) if m["kind"] == "toml")


@dataclass
class Walk:
    """What a reader has after the page: a folder, and what each command printed."""

    folder: Path
    printed: dict[str, str]

    def result(self, run: str) -> dict:
        return json.loads((self.folder / "runs" / run / "result.json").read_text())

    def output(self, start: str) -> str:
        return next(text for command, text in self.printed.items() if command.startswith(start))


@pytest.fixture(scope="module")
def walk(tmp_path_factory) -> Walk:
    """The commands are run in this process, as `eureka` would, and so are the trainings of the search: a start of torch
    for each costs more than what they do. `test_cli_runs` has the command with processes."""
    folder = tmp_path_factory.mktemp("add_a_task")
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    installed = str(install(tmp_path_factory.mktemp("installed")))
    printed: dict[str, str] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("COLUMNS", "200")
        patch.setenv("OPENAI_API_KEY", "")
        train_here(patch)
        for command in COMMANDS:
            program, *arguments = shlex.split(command)
            assert program == "eureka"
            if "reacher.py" not in command:  # installed for the commands that name the task: those before use the file
                patch.syspath_prepend(installed)
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                code = cli.main(arguments)
            assert code == 0, f"{command}\n{out.getvalue()[-2000:]}"
            printed[command] = out.getvalue()
    return Walk(folder, printed)


def install(place: Path) -> Path:
    """What `pip install .` leaves of the page's package: its modules, and its entry points in the metadata."""
    for module in PYPROJECT["tool"]["setuptools"]["py-modules"]:
        (place / f"{module}.py").write_text(FILES[f"{module}.py"], encoding="utf-8")
    project = PYPROJECT["project"]
    metadata = place / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return place


def test_the_page_is_what_it_says():
    assert list(FILES) == ["reacher.py", "reacher_human.py", "reacher_sparse.py"]
    assert len(FILES["reacher.py"].splitlines()) < 100
    for verb in ("show", "check", "train", "search"):
        assert any(command.startswith(f"eureka {verb}") for command in COMMANDS), verb


def test_the_designer_reads_the_task_without_its_fitness(walk):
    prompt = walk.output("eureka show")
    assert "move the arm's tip to the target and hold it there" in prompt
    assert "tip_velocity_w" in prompt and "class Reacher" in prompt and "sim.set_state" in prompt
    assert "minus the mean distance" not in prompt and "hidden_dims" not in prompt
    assert not re.search(r"def fitness|fitness_doc|fitness_unit", prompt)


def test_the_human_reward_is_accepted(walk):
    assert "The reward program was accepted" in walk.output("eureka check reacher_human.py")


def test_the_arm_learns(walk):
    """The page: a few centimetres at the end. Over the whole episode, the way there included, below 0.2 m on average;
    an arm that does nothing is about 0.4 m away."""
    result = walk.result("human")
    assert result["status"] == "ok" and result["fitness_unit"] == "m"
    assert result["fitness"] > -0.2
    printed = re.search(r"fitness (-\d\.\d+)", walk.output("eureka train"))
    assert printed and float(printed[1]) == pytest.approx(result["fitness"], abs=1e-3)


def test_the_arm_ends_up_within_centimetres(walk):
    """The page says so: where the tip is when an episode ends, in the middle of 128 of them."""
    from rl.checkpoint import latest, load_policy
    from tasks.env import make_env
    from tasks.registry import make

    task = make(str(walk.folder / "reacher.py"))
    checkpoint = latest(walk.folder / "runs" / "human")
    assert checkpoint is not None
    policy = load_policy(checkpoint, task)
    env = make_env(task, 128, seed=77, num_threads=1)
    for _ in range(env.max_episode_steps):
        step = env.step(policy(env.observe()))
    assert step.truncated.all()
    assert step.signals["target_distance"].median() < 0.06


def test_doing_nothing_is_far_worse(tmp_path):
    """What the bound above is worth: the held-out distance of an arm that is left alone."""
    from tasks.env import make_env
    from tasks.registry import make

    (tmp_path / "reacher.py").write_text(FILES["reacher.py"])
    env = make_env(make(str(tmp_path / "reacher.py")), 256, num_threads=1)
    distances = [env.step(env.observe().new_zeros(256, 2)).signals["target_distance"].mean().item() for _ in range(100)]
    assert sum(distances) / len(distances) > 0.35


def test_the_search_reports_and_keeps_its_best(walk):
    search = walk.folder / "runs" / "search"
    printed = walk.output("eureka search")
    assert "best reward: g0" in printed and "report.html" in printed
    assert (search / "report.html").stat().st_size > 5000
    assert (search / "done").exists()
    assert (search / "best" / "reward.py").is_file()
    assert len(list((search / "candidates").iterdir())) == 4


def test_the_installed_task_has_a_name(walk):
    assert walk.printed["eureka show reacher"] == walk.printed["eureka show reacher.py"]
