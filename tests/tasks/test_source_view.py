"""What a reward designer may read of a task's source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tasks import registry
from tasks.source_view import designer_source

FILE = '''"""Module docstring."""

from __future__ import annotations

import math
import statistics

import torch

from tests.tasks.toy_tasks import Slider

SHOWN_LIMIT_M = 1.0
"""Docstring of the shown limit."""
FITNESS_BONUS = 17.5
"""Docstring of the hidden bonus."""
_FITNESS_PRIVATE = 18.5
GOAL_RADIUS_M = 0.125  # a comment about the goal
RADIUS_SQUARED = GOAL_RADIUS_M ** 2
USED_BY_BOTH = math.pi


def near_goal(position):
    """Only the fitness calls this."""
    return deeper(position) < RADIUS_SQUARED


def deeper(position):
    return position * statistics.mean([1.0, 3.0])


def shaped(position):
    return position * USED_BY_BOTH


class Plain:
    """A helper of the signals."""

    factor = 2.0


class OtherTask(Slider):
    """Belongs to the same file."""

    name = "other"
    instruction = "something else entirely"


class Mine(Slider):
    fitness_unit = "furlong"
    """A furlong is secret."""
    name = "mine"
    fitness_doc = "how near the goal"
    fitness_reduce = "last"
    training = {"iterations": 321}
    start_spread_m = 0.25

    def signals(self, sim):
        """Docstring of signals."""
        # a comment inside
        return {**super().signals(sim), "position": shaped(sim.qpos) * Plain.factor}

    def terminate(self, signals):
        return {"lost": signals["position"][:, 0] > SHOWN_LIMIT_M}

    def _fitness_part(self, signals):
        return signals["position"] * USED_BY_BOTH

    def fitness(self, signals):
        """Secret sauce."""
        return torch.sqrt(near_goal(self._fitness_part(signals))[:, 0] + FITNESS_BONUS + _FITNESS_PRIVATE)
'''


@pytest.fixture(scope="module")
def view(tmp_path_factory) -> str:
    file: Path = tmp_path_factory.mktemp("view") / "viewed_task.py"
    file.write_text(FILE)
    return designer_source(registry.make(f"{file}:Mine"))


def test_it_is_still_python(view):
    ast.parse(view)


@pytest.mark.parametrize(
    "word",
    [
        "fitness",
        "FITNESS",
        "hidden bonus",
        "furlong",
        "17.5",
        "18.5",
        "how near",
        "training",
        "321",
        "ecret",
    ],
)
def test_fitness_and_training_are_gone(view, word):
    assert word in FILE
    assert word not in view


@pytest.mark.parametrize(
    "word", ["GOAL_RADIUS_M", "RADIUS_SQUARED", "0.125", "near_goal", "deeper", "statistics", "sqrt"]
)
def test_what_only_the_fitness_used_is_gone(view, word):
    assert word in FILE
    assert word not in view


@pytest.mark.parametrize("word", ["a comment", "#", "OtherTask", "something else"])
def test_comments_and_other_tasks_are_gone(view, word):
    assert word in FILE
    assert word not in view


@pytest.mark.parametrize(
    "text",
    [
        "Module docstring",
        "import math",
        "SHOWN_LIMIT_M = 1.0",
        "USED_BY_BOTH = math.pi",
        "def shaped(position)",
        "class Plain",
        "A helper of the signals.",
        "factor = 2.0",
        "class Mine(Slider)",
        "name = 'mine'",
        "start_spread_m = 0.25",
        "Docstring of signals",
        "'position': shaped(sim.qpos) * Plain.factor",
        "def terminate",
        "> SHOWN_LIMIT_M}",
        "import Slider",
    ],
)
def test_everything_else_is_kept(view, text):
    assert text in view


def test_a_class_constant_that_only_the_fitness_reads_is_gone(tmp_path):
    file = tmp_path / "class_constants.py"
    file.write_text(
        "from tests.tasks.toy_tasks import Slider\n"
        "class Mine(Slider):\n"
        "    name = 'mine'\n"
        "    success_radius_m = 0.0625\n"
        "    step_m = 0.03125\n"
        "    episode_length_s = 0.8\n"
        "    def terminate(self, signals): return {'far': signals['position'][:, 0] > self.step_m}\n"
        "    def fitness(self, signals): return self._inside(signals)\n"
        "    def _inside(self, signals): return (signals['position'][:, 0] < self.success_radius_m).float()\n"
    )
    view = designer_source(registry.make(str(file)))
    assert "success_radius_m" not in view and "0.0625" not in view and "_inside" not in view
    assert "step_m = 0.03125" in view and "episode_length_s = 0.8" in view and "def terminate" in view


def test_a_task_that_is_all_fitness_leaves_an_empty_class(tmp_path):
    file = tmp_path / "only_fitness.py"
    file.write_text(
        "from tests.tasks.toy_tasks import Slider\nclass Mine(Slider):\n    fitness_unit = 'm'\n"
        "class Other(Slider):\n    name = 'o'\n"
    )
    view = designer_source(registry.make(f"{file}:Mine"))
    assert view.split("\n")[-2:] == ["class Mine(Slider):", "    pass"]


@pytest.mark.parametrize("name", registry.names())
def test_no_built_in_task_shows_its_fitness(name):
    task = registry.make(name)
    view = designer_source(task)
    ast.parse(view)
    assert "fitness" not in view.lower()
    assert task.fitness_doc not in view
    assert f"class {type(task).__name__}(" in view and "def observe" in view and "def terminate" in view


BASE = '''"""Base module."""

import torch

from tests.tasks.toy_tasks import Slider

REACH_M = 0.5
FITNESS_SCALE = 21.5
ONLY_SCORED_M = 22.5


class Unrelated(Slider):
    name = "unrelated"


class Base(Slider):
    """A family of tasks."""

    def terminate(self, signals):
        return {"far": signals["position"][:, 0] > REACH_M}

    def fitness(self, signals):
        return self.gap(signals) * ONLY_SCORED_M

    def gap(self, signals):
        return signals["position"][:, 0]

    def visual_qpos(self, qpos, memory):
        return qpos * 33.5
'''
CHILD = '''"""Child module."""

from shown_base import Base


class Child(Base):
    """One of the family."""

    name = "child"
'''


def test_a_base_class_in_another_file_is_shown_without_its_fitness(tmp_path, monkeypatch):
    """What a step does may stand in a file that tasks share; what only its fitness uses goes, as in the task's own."""
    (tmp_path / "shown_base.py").write_text(BASE)
    (tmp_path / "shown_child.py").write_text(CHILD)
    monkeypatch.syspath_prepend(str(tmp_path))
    import importlib

    child = importlib.import_module("shown_child")
    text = designer_source(child.Child())
    assert text.index("class Base(Slider)") < text.index("class Child(Base)")
    assert "REACH_M = 0.5" in text and "A family of tasks." in text and "One of the family." in text
    for hidden in ("21.5", "22.5", "33.5", "def gap", "fitness", "Unrelated"):
        assert hidden not in text, hidden
