"""The manual designer: prompts and replies as files, half-written files on a clock that the tests drive, resuming, time limit, pasting."""

from __future__ import annotations

import io
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest

from eureka.designers import manual
from eureka.designers.base import Ask, DesignContext, DesignerConfig, DesignerStopped, Message, Reply
from eureka.designers.manual import ManualDesigner
from tasks.errors import UserError
from tasks.signals import Signal, SignalTable

TABLE = SignalTable([Signal("actions", 2, "1", "joint", "action", "actions")])


def ask(index: int) -> Ask:
    name = f"g02_c{index:02d}"
    messages = (Message("system", "the rules"), Message("user", f"write {name}"))
    return Ask(f"{name}_r0", name, 0, messages, DesignContext("t", "move", TABLE))


def config(**settings) -> DesignerConfig:
    return DesignerConfig(**({"manual_poll_s": 0.03, "manual_timeout_s": 60.0} | settings))


class Terminal(io.StringIO):
    """Text that claims to come from a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    """Time for the designer, which passes only while it waits: what others do meanwhile is done at given moments."""

    def __init__(self, *doings: tuple[float, Callable[[], object]]) -> None:
        self.now_s = 1000.0
        self.doings = deque(doings)

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        """The system's: files carry its moments."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        while self.doings and self.now_s >= 1000.0 + self.doings[0][0]:
            self.doings.popleft()[1]()


@pytest.fixture
def waits(tmp_path: Path, monkeypatch):
    """Has a designer of the given settings wait for two replies while others do things; what it got, and when."""

    def run(*doings: tuple[float, Callable[[], object]], **settings) -> list[tuple[str, str, float]]:
        clock = Clock(*doings)
        monkeypatch.setattr(manual, "time", clock)
        got: list[tuple[str, str, float]] = []
        designer = ManualDesigner(DesignerConfig(**settings), search_dir=tmp_path, say=said.append)
        designer.check()
        designer.answer([ask(0), ask(1)], lambda r: got.append((r.ask_id, r.text or "", clock.now_s - 1000.0)))
        return got

    said: list[str] = []
    run.said = said
    return run


FIRST, SECOND = "g02_c00_r0", "g02_c01_r0"


def program(name: str) -> str:
    return f"So be it.\n```python\ndef compute_reward(actions):\n    {name} = actions[:, 0]\n    return {name}, {{}}\n```\n"


def written(folder: Path, ask_id: str, text: str, mode: str = "w") -> Callable[[], object]:
    def write() -> None:
        with (folder / "manual" / f"{ask_id}.reply.md").open(mode) as file:
            file.write(text)

    return write


def test_replies_are_taken_by_their_file_name_when_they_stand_still(waits, tmp_path: Path) -> None:
    """In any order, three seconds after their last change, however slowly they were written."""
    text = program("first")
    pieces = [text[start : start + 20] for start in range(0, len(text), 20)]
    parts = [(2.0 + 2.9 * n, written(tmp_path, FIRST, piece, "a")) for n, piece in enumerate(pieces)]
    got = waits((1.0, written(tmp_path, SECOND, program("second"))), *parts, manual_poll_s=0.1)
    assert [name for name, _, _ in got] == [SECOND, FIRST]
    assert [content for _, content, _ in got] == [program("second"), text]
    assert [at_s for _, _, at_s in got] == pytest.approx([1.0 + 3.0, parts[-1][0] + 3.0], abs=0.35)
    prompt = (tmp_path / "manual" / "g02_c00_r0.prompt.md").read_text()
    assert "the rules" in prompt
    assert "write g02_c00" in prompt
    assert len(waits.said) == 1
    assert "g02_c00_r0.reply.md, g02_c01_r0.reply.md" in waits.said[0]
    assert "\n" not in waits.said[0]


@pytest.mark.parametrize("cut", [5, 30, -4], ids=["before the code", "in the code", "before the fence's end"])
def test_what_does_not_read_as_whole_is_waited_for_longer(waits, tmp_path: Path, cut: int) -> None:
    """A writer may stand still for long in the middle; a file that stays so is the reply in the end, and this is said."""
    text = program("first")
    rest = (25.0, written(tmp_path, FIRST, text[cut:], "a"))
    got = waits((1.0, written(tmp_path, FIRST, text[:cut])), (1.0, written(tmp_path, SECOND, text[:cut])), rest)
    assert [(name, content) for name, content, _ in got] == [(FIRST, text), (SECOND, text[:cut])]
    assert [at_s for _, _, at_s in got] == pytest.approx([25.0 + 3.0, 1.0 + 30.0], abs=1.5)
    assert [line.partition(" ")[0] for line in waits.said[1:]] == [f"{FIRST}.reply.md", f"{SECOND}.reply.md"]
    assert all("30 s" in line for line in waits.said[1:])


def test_a_change_that_size_and_time_do_not_show_counts(waits, tmp_path: Path) -> None:
    """Saved anew under the same name, as editors do: the file is another one."""
    path = tmp_path / "manual" / f"{FIRST}.reply.md"

    def saved_anew() -> None:
        status = path.stat()
        other = path.with_name("other")
        other.write_text(program("later"))
        os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
        other.replace(path)

    second = (1.0, written(tmp_path, SECOND, program("second")))
    got = waits((1.0, written(tmp_path, FIRST, program("first"))), second, (3.0, saved_anew))
    assert {name: content for name, content, _ in got} == {FIRST: program("later"), SECOND: program("second")}
    assert {name: at_s for name, _, at_s in got}[FIRST] == pytest.approx(6.0, abs=1.1)


def test_a_file_that_changes_while_it_is_read_is_read_again(waits, tmp_path: Path, monkeypatch) -> None:
    real, later = Path.read_text, [written(tmp_path, FIRST, program("the_whole_of_it"))]

    def read_text(self: Path, **options: str) -> str:
        text = real(self, **options)
        if later and self.name.startswith(FIRST):
            later.pop()()
        return text

    monkeypatch.setattr(Path, "read_text", read_text)
    got = waits(*((1.0, written(tmp_path, name, program("first"))) for name in (FIRST, SECOND)))
    assert {name: content for name, content, _ in got} == {FIRST: program("the_whole_of_it"), SECOND: program("first")}


def test_the_age_of_a_file_counts_only_at_the_first_look(waits, tmp_path: Path) -> None:
    """One that arrives later with an old date, as a copy does, may be half copied: it has to stand still here."""

    def copied(text: str) -> Callable[[], object]:
        def copy() -> None:
            written(tmp_path, FIRST, text)()
            os.utime(tmp_path / "manual" / f"{FIRST}.reply.md", (1e9, 1e9))

        return copy

    whole, second = program("first") + "And this too.\n", (1.0, written(tmp_path, SECOND, program("second")))
    got = waits(second, (5.0, copied(program("first"))), (7.0, copied(whole)))
    assert {name: (content, at_s) for name, content, at_s in got}[FIRST] == (whole, pytest.approx(10.0, abs=1.1))


def test_a_prompt_and_a_pasted_reply_are_never_there_in_part(tmp_path: Path, monkeypatch) -> None:
    """Whoever looks while one is written sees none, or the one before; a kill then leaves no half reply to be taken."""
    designer = ManualDesigner(
        config(manual_paste=True), search_dir=tmp_path, say=lambda _: None, terminal=Terminal(f"{program('x')}END\n")
    )
    designer.check()
    prompt = tmp_path / "manual" / "g02_c00_r0.prompt.md"
    prompt.write_text("the one before")
    real, seen = os.fsync, []

    def fsync(handle: int) -> None:
        if os.path.isfile(f"/proc/self/fd/{handle}"):
            seen.append({path.name: path.read_text() for path in (tmp_path / "manual").glob("g*")})
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    designer.answer([ask(0)], lambda _: None)
    assert seen == [{prompt.name: "the one before"}, {prompt.name: prompt.read_text()}]
    assert "write g02_c00" in prompt.read_text() and designer.reply_path("g02_c00_r0").read_text() == program("x")


def test_time_in_which_it_did_not_look_is_not_held_for_the_file(waits, tmp_path: Path, monkeypatch) -> None:
    """A machine that was frozen may have frozen who writes: one look after an hour finds nothing settled."""
    whole = program("first") + "And this too.\n"
    frozen = (2.0, lambda: setattr(manual.time, "now_s", manual.time.now_s + 3600.0))
    # At the moment of the freeze the first has stood still for one look; the rest comes between the next two.
    parts = (1.0, written(tmp_path, FIRST, program("first"))), frozen, (3602.5, written(tmp_path, FIRST, whole))
    got = waits(*parts, (3602.5, written(tmp_path, SECOND, program("second"))))
    assert {name: content for name, content, _ in got} == {FIRST: whole, SECOND: program("second")}


def test_replies_that_lie_there_are_taken_at_once(waits, tmp_path: Path) -> None:
    """As after a resume, a reply without a program too: nothing is said, nothing is waited for."""
    folder = tmp_path / "manual"
    folder.mkdir()
    for index in (0, 1):
        path = folder / f"g02_c0{index}_r0.reply.md"
        path.write_text(f"old {index}")
        os.utime(path, (1e9, 1e9))
    assert waits() == [(FIRST, "old 0", 0.0), (SECOND, "old 1", 0.0)]
    assert waits.said == []


def test_an_empty_file_is_no_reply_and_the_wait_can_end(waits, tmp_path: Path) -> None:
    (tmp_path / "manual").mkdir()
    written(tmp_path, FIRST, " \n\n")()
    written(tmp_path, SECOND, program("here"))()
    (tmp_path / "manual" / "g02_c00_r0.reply.md").write_text("")
    with pytest.raises(DesignerStopped, match=r"g02_c00_r0 within 80 s.*--manual-timeout-s") as stopped:
        waits((20.0, written(tmp_path, FIRST, " \n\n")), manual_timeout_s=80.0)
    assert "\n" not in str(stopped.value) and SECOND not in str(stopped.value)


def test_replies_can_be_pasted(tmp_path: Path) -> None:
    """Each ends with a line END; they go to the open asks in their order, and into files like all others."""
    terminal = Terminal("reply one\nwith END inside a line\nEND\nreply two\n END \n")
    replies: list[Reply] = []
    pasting = config(manual_paste=True, manual_timeout_s=20.0)  # they are whole: nothing has to stand still for 30 s
    designer = ManualDesigner(pasting, search_dir=tmp_path, say=lambda _: None, terminal=terminal)
    designer.check()
    designer.answer([ask(0), ask(1)], replies.append)
    assert {r.ask_id: r.text for r in replies} == {
        "g02_c00_r0": "reply one\nwith END inside a line\n",
        "g02_c01_r0": "reply two\n",
    }
    assert designer.reply_path("g02_c01_r0").read_text() == "reply two\n"


def test_a_pasted_reply_replaces_no_file(tmp_path: Path) -> None:
    """It goes to the first ask for which nothing lies there yet, though what lies there is not finished."""

    class Enough(Exception):
        """One reply will do."""

    def enough(reply: Reply) -> None:
        raise Enough(reply.ask_id)

    pasting = config(manual_paste=True, manual_timeout_s=20.0)
    designer = ManualDesigner(pasting, search_dir=tmp_path, say=lambda _: None, terminal=Terminal("pasted\nEND\n"))
    designer.check()
    designer.reply_path("g02_c00_r0").write_text("half a pro")
    with pytest.raises(Enough, match="g02_c01_r0"):
        designer.answer([ask(0), ask(1)], enough)
    assert designer.reply_path("g02_c00_r0").read_text() == "half a pro"
    assert designer.reply_path("g02_c01_r0").read_text() == "pasted\n"


def test_a_closed_terminal_stops_it(tmp_path: Path) -> None:
    designer = ManualDesigner(
        config(manual_paste=True), search_dir=tmp_path, say=lambda _: None, terminal=Terminal("half a rep")
    )
    with pytest.raises(DesignerStopped, match="--resume"):
        designer.answer([ask(0)], lambda _: None)


def test_check(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot make"):
        ManualDesigner(config(), search_dir=tmp_path / "file").check()
    with pytest.raises(UserError, match="needs a terminal"):
        ManualDesigner(config(manual_paste=True), search_dir=tmp_path, terminal=io.StringIO()).check()
