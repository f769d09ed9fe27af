"""Names and files of tasks: what is found, and what a wrong reference is told."""

from __future__ import annotations

import sys
import types
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from tasks import registry
from tasks.errors import UserError
from tasks.task import check_task
from tests.tasks.toy_tasks import Slider

BUILT_IN = ["cartpole-balance", "cartpole-swingup", "ball-balance", "quadcopter-hover", "ant-run", "humanoid-run",
            "ant-command", "humanoid-command", "anymal-velocity", "g1-velocity", "x2-hover", "franka-cabinet",
            "allegro-reorient", "shadow-reorient", "shadow-pen-spin", "shadow-over", "shadow-catch-underarm",
            "shadow-door-open-outward", "shadow-scissors", "shadow-bottle-cap", "shadow-block-stack", "ant-tour",
            "humanoid-tour", "quadcopter-command", "quadcopter-tour"]  # fmt: skip
TASK_FILE = '''"""A task file."""
from tests.tasks.toy_tasks import Slider

class {name}(Slider):
    name = "{name}"
'''


def told(ref: str) -> str:
    """The line that a wrong reference gets."""
    with pytest.raises(UserError) as caught:
        registry.make(ref)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def write(tmp_path):
    """Writes a task file with task classes of the given names, or with the given text."""

    def write(*names: str, text: str = "", path: str = "my_task.py") -> Path:
        file = tmp_path / path
        file.write_text(text or "".join(TASK_FILE.format(name=name) for name in names))
        return file

    return write


@pytest.fixture
def points(monkeypatch):
    """Pretends that installed packages declare entry points."""

    def declare(**targets: str) -> None:
        found = [EntryPoint(name.replace("_", "-"), target, "eureka_skills.tasks") for name, target in targets.items()]

        def fake(*, group: str) -> list[EntryPoint]:
            return found if group == "eureka_skills.tasks" else []

        monkeypatch.setattr(registry, "entry_points", fake)

    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    return declare


def test_the_rewards_of_a_task_that_is_not_ours_lie_beside_its_file(write, points):
    """Also where it comes by an entry point, that is, by name."""
    file = write("Mine")
    points(their_task="tests.tasks.toy_tasks:Slider")
    assert registry.user_file(registry.make(str(file))) == file
    assert registry.user_file(registry.make("their-task")) == Path(__file__).with_name("toy_tasks.py")
    assert registry.user_file(registry.make("ant-run")) is None


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_name_makes_its_task(name):
    assert registry.names()[: len(BUILT_IN)] == BUILT_IN
    assert registry.make(name).name == name


def test_an_unknown_name_is_answered_with_the_known_ones():
    line = told("ant_run")
    assert "unknown task 'ant_run'" in line and "humanoid-run" in line and "Did you mean 'ant-run'?" in line
    assert "Did you mean" not in told("xyzzy")


def test_a_file_with_one_task_class(write):
    task = registry.make(str(write("Mine")))
    assert task.name == "Mine" and isinstance(task, Slider)
    assert type(registry.make(str(write("Mine")))) is type(task)  # imported once


def test_relative_paths_and_their_absolute_form(write, tmp_path, monkeypatch):
    file = write("Near")
    monkeypatch.chdir(tmp_path)
    assert registry.make("my_task.py").name == "Near"
    assert registry.make("./my_task.py:Near").name == "Near"
    assert registry.absolute_ref("my_task.py") == str(file)
    assert registry.absolute_ref("my_task.py:Near") == f"{file}:Near"
    assert registry.absolute_ref("ant-run") == "ant-run"


def test_missing_file_and_its_neighbour(write, tmp_path):
    write("Mine", path="my_task.py")
    assert "no task file" in (line := told(str(tmp_path / "my_tsak.py"))) and "Did you mean 'my_task.py'?" in line
    assert "no task file" in told(str(tmp_path / "nowhere" / "my_task.py"))
    assert "no task file" in told(str(tmp_path))


def test_two_task_classes_must_be_named(write):
    file = write("First", "Second")
    assert "holds 2 task classes (First, Second)" in (line := told(str(file))) and "my_task.py:Class" in line
    assert registry.make(f"{file}:Second").name == "Second"
    assert "Did you mean 'Second'?" in told(f"{file}:Secnd")


def test_a_file_without_a_task_class(write):
    assert "holds 0 task classes (none)" in told(str(write(text="x = 1\n")))
    # A class that is only imported is no task of this file.
    assert "holds 0 task classes" in told(str(write(text="from tests.tasks.toy_tasks import Slider\n", path="b.py")))


def test_a_base_class_without_a_name_is_no_second_task(write):
    text = "from tests.tasks.toy_tasks import *\nfrom tasks.task import Task\nclass Base(Task):\n    pass\n"
    text += "class Mine(Slider, Base):\n    name = 'mine'\n"
    assert registry.make(str(write(text=text))).name == "mine"


def test_a_task_class_that_forgot_its_name_is_told_so(write):
    line = told(str(write(text="from tasks.task import Task\nclass Mine(Task):\n    instruction = 'x'\n")))
    assert "Mine does not set 'name'" in line


@pytest.mark.parametrize(
    ("text", "line_number", "words"),
    [
        ("x = 1\ndef f(:\n", 2, "SyntaxError"),
        ("x = 1\n\nimport no_such_module_anywhere\n", 3, "no_such_module_anywhere"),
        ("x = 1\ny = 1 / 0\n", 2, "ZeroDivisionError"),
        ("x = 1\nraise ValueError('two\\nlines')\n", 2, "two lines"),
        ("from tasks.signals import Signal\nSignal('a b', 1, 'm', 'world', 'position', '')\n", 2, "identifier"),
    ],
)
def test_a_file_that_fails_names_the_line(write, text, line_number, words):
    line = told(str(write(text=text)))
    assert f"my_task.py, line {line_number}:" in line and words in line


def test_a_mended_file_can_be_made(write):
    """A failed import leaves nothing behind."""
    told(str(write(text="x = 1 / 0\n")))
    assert registry.make(str(write("Mended"))).name == "Mended"


def test_two_files_of_one_name_are_two_modules(write, tmp_path):
    (tmp_path / "other").mkdir()
    first, second = write("First"), write("Second", path="other/my_task.py")
    assert (registry.make(str(first)).name, registry.make(str(second)).name) == ("First", "Second")


def test_registering(points):
    points()
    registry.register("my-slider", "tests.tasks.toy_tasks:Slider")
    registry.register("my-slider", "tests.tasks.toy_tasks:Slider")  # the same again is no conflict
    assert registry.names()[-1] == "my-slider"
    assert isinstance(registry.make("my-slider"), Slider)
    with pytest.raises(UserError, match="'ant-run' exists already"):
        registry.register("ant-run", "tests.tasks.toy_tasks:Slider")


def test_entry_points_add_names(points):
    points(their_task="tests.tasks.toy_tasks:Slider")
    assert registry.names() == [*BUILT_IN, "their-task"]
    assert isinstance(registry.make("their-task"), Slider)
    assert "Did you mean 'their-task'?" in told("their-tsak")


def test_an_entry_point_cannot_take_a_name(points):
    points(ant_run="elsewhere:Ant")
    assert "registers a task 'ant-run'" in (line := told("ant-run")) and "uninstall" in line


def test_entry_points_that_do_not_load(points, monkeypatch):
    broken = types.ModuleType("broken_package")
    monkeypatch.setitem(sys.modules, "broken_package", broken)
    broken.number = 3
    points(a="no_such_package:Task", b="broken_package:Missing", c="broken_package:number")
    assert "cannot be loaded from no_such_package:Task" in told("a")
    assert "cannot be loaded from broken_package:Missing" in told("b")
    assert "not a subclass of tasks.task.Task" in told("c")


def test_an_entry_point_whose_module_fails_is_one_line(points, tmp_path, monkeypatch):
    (tmp_path / "failing_package.py").write_text("x = 1 +\n")
    monkeypatch.syspath_prepend(tmp_path)
    points(d="failing_package:Task")
    assert "cannot be loaded from failing_package:Task" in told("d")


@pytest.mark.parametrize(
    "field", ["name", "instruction", "action_doc", "xml", "signal_table", "fitness_unit", "fitness_doc"]
)
def test_check_task_names_a_missing_field(field):
    values = {key: value for key, value in vars(Slider).items() if key != field and not key.startswith("__")}
    incomplete = type("Incomplete", Slider.__bases__, values)
    with pytest.raises(UserError, match=f"Incomplete does not set '{field}'"):
        check_task(incomplete())


@pytest.mark.parametrize("method", ["reset", "signals", "observe", "terminate", "fitness"])
def test_check_task_names_a_missing_method(method):
    values = {key: value for key, value in vars(Slider).items() if key != method and not key.startswith("__")}
    incomplete = type("Incomplete", Slider.__bases__, values)
    with pytest.raises(UserError, match=rf"Incomplete does not define {method}\(\)"):
        check_task(incomplete())


@pytest.mark.parametrize(
    ("values", "told_part"),
    [
        ({"signal_table": [1]}, "signal_table is a list, expected a SignalTable"),
        ({"fitness_reduce": "median"}, "fitness_reduce is 'median'"),
        ({"episode_length_s": 0.0}, "must be positive"),
        ({"control_dt_s": -0.02}, "must be positive"),
    ],
)
def test_check_task_names_a_wrong_value(values, told_part):
    with pytest.raises(UserError) as caught:
        check_task(type("Wrong", (Slider,), values)())
    assert told_part in str(caught.value)
