"""What a person gives: a reward to start from, and a sentence after a generation; both survive stops and replays."""

from __future__ import annotations

import io
import json
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from eureka import prompts
from eureka.archive import Archive
from eureka.candidate import Status
from eureka.designers.base import DesignerConfig
from eureka.designers.replay import export_recording, read_replies, recorded_feedback, recorded_settings
from eureka.feedback import GIVEN, AtTerminal, Recorded, clean, place
from eureka.integrity import examine
from eureka.report import write_report
from eureka.search import run_search
from eureka.search_config import load_config, start_folder
from tasks.errors import UserError
from tests.eureka.scripted import SLIDER, ScriptedDesigner, program, slider_config
from tests.eureka.test_halving import RungExecutor

GIVEN_PROGRAM = program(9.0, "given_pull").partition("```python\n")[2].partition("```")[0]


class Scripted:
    """A person who answers in order, and remembers what was shown."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.shown = list(answers), []

    def ask(self, generation: int, shown: str, file: Path) -> str:
        self.shown.append((generation, shown))
        return self.answers.pop(0)


def search(folder: Path, person: Any, executor: RungExecutor | None = None, **changes: Any) -> ScriptedDesigner:
    if not (folder / "search.json").exists():
        start_folder(slider_config(**{"samples": 2, "final_seeds": 0, **changes}), folder)
    designer = ScriptedDesigner()
    run_search(folder, load_config(folder), designer, executor or RungExecutor(), person=person)
    return designer


def prompt_of(designer: ScriptedDesigner, ask_id: str) -> str:
    return next(ask for ask in designer.asked if ask.ask_id == ask_id).messages[-1].content


@pytest.fixture(scope="module")
def guided(tmp_path_factory):
    """Three generations from a given reward, with a sentence after the first and none after the second."""
    folder, person = tmp_path_factory.mktemp("guided") / "search", Scripted("  lift the ```feet``` \x07higher\n", "\n")
    designer = search(folder, person, generations=3, init_reward=GIVEN_PROGRAM, feedback=True)
    return folder, person, designer


def test_the_given_reward_is_the_first_parent_and_the_one_to_beat(guided):
    """It passed the gate, trained, and is in the first generation's prompts; its children name it."""
    folder, _, designer = guided
    archive = Archive(folder / "search.db", create=False)
    given = archive.candidate(GIVEN)
    assert given is not None and given.status is Status.TRAINED and given.fitness == 25.0
    assert given.source is not None and "given_pull" in given.source
    assert {c.parent_id for c in archive.candidates(1)} == {GIVEN}
    archive.close()
    first = prompt_of(designer, "g01_c00_r0")
    assert "The best so far is g00_c00: held-out fitness 25" in first and "given_pull" in first
    assert examine(folder) == []


def test_what_a_person_says_is_in_the_next_prompts_alone(guided):
    """Fenced so that it cannot end its fence, without control characters; nothing said leaves no trace."""
    _, person, designer = guided
    said = "````text\nlift the ```feet``` higher\n````"
    assert [generation for generation, _ in person.shown] == [1, 2]
    assert person.shown[0][1].startswith("g01_c01, fitness 26 m")
    assert said in prompt_of(designer, "g02_c00_r0") and said in prompt_of(designer, "g02_c01_r0")
    for other in ("g01_c00_r0", "g03_c00_r0"):
        assert "A person who watched" not in prompt_of(designer, other)
    long = prompts.cut("x" * 3000, prompts.FEEDBACK_CAP)
    assert clean("x" * 3000) == "x" * prompts.FEEDBACK_CAP and len(long) < 2100


def test_the_page_shows_both(guided):
    page = write_report(guided[0]).read_text()
    ticks = re.findall(r'<text[^>]*text-anchor="middle"[^>]*>(\d+)</text>', page)
    assert ticks == ["0", "1", "2", "3"] * 2, "the columns of the wide chart and of the narrow one"
    assert "A person said: “lift the ```feet``` higher”" in page
    assert "Generation 0." in page and "Prompt and reply" in page


def test_a_replay_is_told_what_was_said(guided, tmp_path):
    """The recording holds program and sentences; the replayed search has the same prompts and asks nobody."""
    folder, _, designer = guided
    out = export_recording(folder, tmp_path / "recorded").parent
    assert recorded_feedback(out) == recorded_feedback(folder) == {1: "lift the ```feet``` higher", 2: ""}
    settings = recorded_settings(out)
    assert settings["init_reward"] == GIVEN_PROGRAM and settings["feedback"] is True
    assert GIVEN + "_r0" in read_replies(out)
    again = search(tmp_path / "again", Recorded(recorded_feedback(out)), generations=3, init_reward=GIVEN_PROGRAM, feedback=True)  # fmt: skip
    assert [ask.messages for ask in again.asked] == [ask.messages for ask in designer.asked]


def test_a_sentence_is_asked_for_once(guided, tmp_path):
    """A search that was stopped after it goes on without asking; one that found nobody to ask asks at resume."""
    folder = tmp_path / "s"
    nobody = AtTerminal(io.StringIO())
    with pytest.raises(UserError, match=r"no terminal to ask for feedback on g01_c01.*feedback/g01\.txt.*resume"):
        search(folder, nobody, feedback=True)
    place(folder, 1).write_text("slower\n")
    with pytest.raises(KeyboardInterrupt):
        search(folder, nobody, RungExecutor(stop_at="g02_c00_s0"))
    place(folder, 1).unlink()
    designer = search(folder, Scripted())
    assert designer.asked == [], "generation 2 was asked for before the stop"
    assert "slower" in (folder / "candidates/g02_c00/prompt.md").read_text()


def test_a_twin_of_the_given_reward_is_known_after_a_stop(tmp_path):
    """The first sample of generation 1 is the given program again: not trained, though another process trained that."""
    folder, given = tmp_path / "s", program(2.0, "pull_g01_c00").partition("```python\n")[2].partition("```")[0]
    first, second = RungExecutor("g01_c01_s0"), RungExecutor()
    with pytest.raises(KeyboardInterrupt):
        search(folder, Scripted(), first, init_reward=given, generations=1)
    search(folder, Scripted(), second)
    assert first.ran == ["g00_c00_s0"] and second.ran == ["g01_c01_s0"]
    with closing(Archive(folder / "search.db", create=False)) as archive:
        twin = archive.candidate("g01_c00")
    assert twin is not None and twin.equal_to == GIVEN and twin.fitness == 25.0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_at_a_terminal_one_line_is_read(tmp_path):
    said: list[str] = []
    person = AtTerminal(Terminal("faster\nmore\n"), said.append)
    assert clean(person.ask(1, "g01_c00, video.mp4", tmp_path / "g01.txt")) == "faster"
    assert "video.mp4" in said[0]
    with pytest.raises(UserError, match="terminal was closed"):
        AtTerminal(Terminal(""), said.append).ask(1, "x", tmp_path / "g01.txt")


def test_a_given_reward_that_is_refused_costs_nothing(eureka, tmp_path):
    """One line from the command, before there is a folder; and from a folder made otherwise, before a designer is asked."""
    bad = tmp_path / "bad.py"
    bad.write_text("def compute_reward(mass_postion):\n    return mass_postion[:, 0], {}\n")
    code, _, err = eureka("search", SLIDER, "--init-reward", bad, "--out", tmp_path / "s", "--designer", "evolution")
    assert code == 2 and "bad.py is refused: line 1" in err and not (tmp_path / "s").exists()
    designer = ScriptedDesigner()
    config = slider_config(init_reward=bad.read_text(), designer=DesignerConfig(designer="evolution"))
    folder = start_folder(config, tmp_path / "direct")
    with pytest.raises(UserError, match="the given reward is refused: line 1"):
        run_search(folder, config, designer, RungExecutor())
    assert designer.asked == []
    assert json.loads((folder / "search.json").read_text())["init_reward"] == bad.read_text()
