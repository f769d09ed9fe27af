"""Planners that need no endpoint: what may be said, files of instructions, a person, and the oracle's way."""

from __future__ import annotations

import io
import math
import time

import numpy as np
import pytest

from distill.planner import PlannerDone, Subtask, Turn, Vocabulary, choose, parse_until, still_command
from distill.planner_manual import ManualPlanner
from distill.planner_oracle import MARGIN_M, OraclePlanner, find_gaits, steer, waypoint
from distill.planner_script import ScriptPlanner, read_script
from tasks.classic.flying_words import FLYING
from tasks.commands import CommandSet
from tasks.errors import UserError
from tasks.tour import TourFacts
from tests.distill.puck import PuckCommand

COMMANDS = PuckCommand.commands
GAITS = find_gaits(COMMANDS)


def facts(**changes) -> TourFacts:
    """At the origin, facing +x; red 4 m ahead, blue beyond, green to the left."""
    given = {
        "position": np.zeros(3),
        "heading_rad": 0.0,
        "posts": np.array([[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [7.0, 0.0, 0.0]]),
        "colours": ("red", "green", "blue"),
        "order": (0, 2),
        "visited": 0,
        "reach_m": 0.8,
        "succeeded": False,
    }
    return TourFacts(**(given | changes))


@pytest.mark.parametrize("until", [0.0, -1.0, math.inf, math.nan, 61.0])
def test_a_subtask_with_an_impossible_end_is_refused(until):
    with pytest.raises(UserError, match="holds for"):
        Subtask("run forward", until)


def test_a_subtask_has_words_and_not_too_many():
    for words in ("", "  ", "go " * 41):
        with pytest.raises(UserError, match="words"):
            Subtask(words)


def test_until_from_plain_data():
    assert parse_until(2) == 2.0 and parse_until(None) is None and parse_until("Planner decides") is None
    for wrong in ("soon", [1], True):
        with pytest.raises(UserError, match="until is"):
            parse_until(wrong)


def test_a_vocabulary_lets_its_own_phrases_through_and_free_ones_if_asked():
    strict, free = Vocabulary(COMMANDS), Vocabulary(COMMANDS, free=True)
    assert strict.still == "stand still" and strict.checked(" Run  forward. ") == "Run forward"
    with pytest.raises(UserError, match="no command is called 'fly'"):
        strict.checked("fly")
    assert free.checked("fly") == "fly"


def test_standing_still_has_to_be_one_command():
    moving = CommandSet([command for command in COMMANDS if any(command.values)])
    with pytest.raises(UserError, match="0 commands ask for no motion"):
        still_command(moving)


def test_an_unknown_planner_gets_a_hint():
    with pytest.raises(UserError, match="Did you mean 'oracle'"):
        choose("oracel", ("oracle", "script"))


# -- the script


def test_a_script_is_said_line_by_line_and_ends(tmp_path):
    file = tmp_path / "script.txt"
    file.write_text("# a tour\n\n2.0 turn left   # to the post\n1.5 sprint forward\n")
    planner = ScriptPlanner(read_script(file, Vocabulary(COMMANDS)))
    assert [planner.plan((), "", ()) for _ in range(2)] == [Subtask("turn left", 2.0), Subtask("sprint forward", 1.5)]
    with pytest.raises(PlannerDone):
        planner.plan((), "", ())
    file.write_text("1 turn left\n- stand still\n")
    planner = ScriptPlanner(read_script(file, Vocabulary(COMMANDS)))
    assert [planner.plan((), "", ()).instruction for _ in range(4)] == ["turn left"] + ["stand still"] * 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no subtask"),
        ("turn left", "line 1: a line begins with 'turn'"),
        ("2.0", "line 1: expected seconds and an instruction"),
        ("1 turn left\n2 fly", "line 2: no command is called 'fly'"),
        ("- turn left\n2 run forward", "line 2: a line follows one that holds until the end"),
        ("-3 turn left", "line 1: a subtask holds for -3.0 s"),
    ],
)
def test_a_wrong_script_is_one_line_that_names_the_line(tmp_path, text, said):
    file = tmp_path / "script.txt"
    file.write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        read_script(file, Vocabulary(COMMANDS))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="cannot read the script"):
        read_script(tmp_path / "none.txt", Vocabulary(COMMANDS))


# -- a person


def test_what_is_typed_last_counts_and_a_duration_once():
    said: list[str] = []
    typed = io.StringIO("run forward\nfly\n\n1.5 turn left\n")
    planner = ManualPlanner(typed, Vocabulary(COMMANDS), said.append)
    planner._reader.join(5.0)
    first = planner_before_end(planner)
    assert first == Subtask("turn left", None)
    assert [planner.facts()[name] for name in ("typed", "refused")] == [2, 1]
    assert any("no command is called 'fly'" in line for line in said)
    assert planner.plan((), "", [Turn(0.0, first, 1.4)]).instruction == "turn left"
    assert planner.plan((), "", [Turn(0.0, first, 1.6)]).instruction == "stand still"


def planner_before_end(planner: ManualPlanner) -> Subtask:
    """What it says before it learns that its stream has ended."""
    lines = []
    while not planner._typed.empty():
        lines.append(planner._typed.get())
    assert lines.pop() is None
    for line in lines:
        planner._typed.put(line)
    return planner.plan((), "", ())


def test_a_person_who_leaves_ends_it():
    for text in ("", "run forward\nquit\n"):
        planner = ManualPlanner(io.StringIO(text), Vocabulary(COMMANDS), lambda line: None)
        planner._reader.join(5.0)
        with pytest.raises(PlannerDone):
            planner.plan((), "", ())


# -- the oracle


def test_the_gaits_are_found_by_their_numbers():
    assert (GAITS.fast, GAITS.slow, GAITS.left, GAITS.right, GAITS.still) == (
        "run forward",
        "walk slowly forward",
        "turn left",
        "turn right",
        "stand still",
    )
    with pytest.raises(UserError, match="needs commands to go forward and to turn"):
        find_gaits(CommandSet([command for command in COMMANDS if "turn" not in command.name]))


@pytest.mark.parametrize(
    ("changes", "turning", "command"),
    [
        ({}, False, "run forward"),
        ({"heading_rad": -0.5}, False, "turn left"),
        ({"heading_rad": 0.5}, False, "turn right"),
        ({"heading_rad": 0.3}, False, "run forward"),
        ({"heading_rad": 0.3}, True, "turn right"),
        ({"heading_rad": 3.0}, False, "turn right"),
        ({"heading_rad": -3.0 + 2 * math.tau}, False, "turn left"),
        ({"position": np.array([3.0, 0.0, 0.6])}, False, "walk slowly forward"),
        ({"visited": 2}, False, "stand still"),
        ({"visited": 1, "position": np.array([3.5, 0.0, 0.0])}, False, "run forward"),
    ],
)
def test_the_oracle_steers_to_the_due_post(changes, turning, command):
    assert steer(facts(**changes), GAITS, turning)[0] == command


def test_a_body_that_flies_comes_to_the_height_first():
    gaits = find_gaits(FLYING)
    assert (gaits.fast, gaits.slow, gaits.up, gaits.down, gaits.still) == (
        "fly forward",
        "fly slowly forward",
        "climb",
        "descend",
        "hover",
    )
    for height, command in ((1.5, "climb"), (-0.9, "descend"), (0.2, "fly forward")):
        posts = np.array([[4.0, 0.0, height], [0.0, 4.0, 0.0], [7.0, 0.0, 0.0]])
        assert steer(facts(posts=posts), gaits, False)[0] == command
    assert steer(facts(posts=posts + [0, 0, 1.0]), gaits, False)[1] == pytest.approx(1.2 / 0.6)


def test_durations_are_those_that_the_body_needs():
    assert steer(facts(heading_rad=-0.5), GAITS, False)[1] == pytest.approx(0.5)
    assert steer(facts(), GAITS, False)[1] == pytest.approx((4.0 - 0.8) / 2.0)
    timed = OraclePlanner(lambda: facts(heading_rad=-2.0), COMMANDS, timed=True)
    assert timed.plan((), "", ()) == Subtask("turn left", 2.0, "to the red post, 4.0 m away")
    assert OraclePlanner(lambda: facts(), COMMANDS).plan((), "", ()).until is None


def test_the_way_leads_around_a_post_that_is_not_due():
    """Walked in small steps, from many sides: never within reach of the post in between, and it arrives."""
    for bearing in np.linspace(0.0, math.tau, 9)[:-1]:
        for aside in (-0.7, 0.0, 0.4):
            cos, sin = math.cos(bearing), math.sin(bearing)
            turned = np.array([[cos, -sin], [sin, cos]])
            posts = np.zeros((3, 3))
            posts[:, :2] = np.array([[5.0, 0.0], [2.5, aside], [-6.0, 0.0]]) @ turned.T
            here = np.zeros(3)
            nearest, walked_m = math.inf, 0.0
            for _ in range(400):
                walked_m += 0.02
                now = facts(position=here, posts=posts, order=(0, 2))
                way = waypoint(now) - here[:2]
                here = here + 0.02 * np.append(way / np.linalg.norm(way), 0.0)
                nearest = min(nearest, float(np.linalg.norm(here - posts[1])))
                if np.linalg.norm(here - posts[0]) < 0.8:
                    break
            else:
                pytest.fail(f"did not arrive, bearing {bearing:.1f}, aside {aside}")
            assert nearest > 0.8 + 0.8 * MARGIN_M, (bearing, aside, nearest)
            # Around the other side it is 5.1 m at least where the post stands 0.4 m aside.
            assert not aside or walked_m < 4.75, (bearing, aside, walked_m)


def test_a_post_behind_or_visited_is_in_nobodys_way():
    assert np.allclose(waypoint(facts(posts=np.array([[4.0, 0, 0], [-1.0, 0, 0], [7.0, 0, 0]]))), [4.0, 0.0])
    # Red was visited and lies on the way to blue.
    assert np.allclose(waypoint(facts(visited=1)), [7.0, 0.0])


def test_reading_typed_lines_does_not_hold_up_a_plan():
    """Nothing typed: the answer comes at once, and is to stand."""

    class Silent(io.StringIO):
        def __iter__(self):
            time.sleep(0.5)
            return iter(())

    planner = ManualPlanner(Silent(), Vocabulary(COMMANDS), lambda line: None)
    began = time.perf_counter()
    assert planner.plan((), "", ()).instruction == "stand still"
    assert time.perf_counter() - began < 0.4
