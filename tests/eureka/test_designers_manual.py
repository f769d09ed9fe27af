"""The manual designer: prompts and replies as files, half-written files, resuming, time limit, pasting."""

from __future__ import annotations

import io
import os
import threading
import time
from pathlib import Path

import pytest

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
    return DesignerConfig(**({"manual_poll_s": 0.03, "manual_timeout_s": 5.0} | settings))


class Terminal(io.StringIO):
    """Text that claims to come from a terminal."""

    def isatty(self) -> bool:
        return True


def test_replies_are_taken_by_their_file_name(tmp_path: Path) -> None:
    """Written in reverse order while it waits; the file being written is taken only when it is whole."""
    said: list[str] = []
    replies: list[Reply] = []
    designer = ManualDesigner(config(manual_poll_s=0.1), search_dir=tmp_path, say=said.append)
    folder = tmp_path / "manual"

    def person() -> None:
        while not (folder / "g02_c01_r0.prompt.md").exists():
            time.sleep(0.01)
        (folder / "g02_c01_r0.reply.md").write_text("second")
        with (folder / "g02_c00_r0.reply.md").open("w") as file:
            for part in ("fi", "r", "s", "t ", "whole"):
                file.write(part)
                file.flush()
                time.sleep(0.06)

    thread = threading.Thread(target=person)
    thread.start()
    designer.check()
    designer.answer([ask(0), ask(1)], replies.append)
    thread.join()
    assert [(r.ask_id, r.text, r.outcome) for r in replies] == [
        ("g02_c01_r0", "second", "ok"),
        ("g02_c00_r0", "first whole", "ok"),
    ]
    prompt = (folder / "g02_c00_r0.prompt.md").read_text()
    assert "the rules" in prompt
    assert "write g02_c00" in prompt
    assert len(said) == 1
    assert "g02_c00_r0.reply.md, g02_c01_r0.reply.md" in said[0]
    assert "\n" not in said[0]


def test_replies_that_lie_there_are_taken_at_once(tmp_path: Path) -> None:
    """As after a resume: nothing is said, nothing is waited for."""
    said: list[str] = []
    replies: list[Reply] = []
    folder = tmp_path / "manual"
    folder.mkdir()
    for index in (0, 1):
        path = folder / f"g02_c0{index}_r0.reply.md"
        path.write_text(f"old {index}")
        os.utime(path, (1e9, 1e9))
    started = time.monotonic()
    designer = ManualDesigner(config(manual_poll_s=30.0), search_dir=tmp_path, say=said.append)
    designer.answer([ask(0), ask(1)], replies.append)
    assert time.monotonic() - started < 2
    assert {r.ask_id: r.text for r in replies} == {"g02_c00_r0": "old 0", "g02_c01_r0": "old 1"}
    assert said == []


def test_an_empty_file_is_no_reply_and_the_wait_can_end(tmp_path: Path) -> None:
    (tmp_path / "manual").mkdir()
    (tmp_path / "manual" / "g02_c00_r0.reply.md").write_text("")
    (tmp_path / "manual" / "g02_c01_r0.reply.md").write_text(" \n\n")
    (tmp_path / "manual" / "g02_c02_r0.reply.md").write_text("here")
    replies: list[Reply] = []
    designer = ManualDesigner(config(manual_timeout_s=0.3), search_dir=tmp_path, say=lambda _: None)
    with pytest.raises(DesignerStopped, match=r"g02_c00_r0, g02_c01_r0 within 0\.3 s.*--manual-timeout-s") as stopped:
        designer.answer([ask(0), ask(1), ask(2)], replies.append)
    assert [r.ask_id for r in replies] == ["g02_c02_r0"]
    assert "\n" not in str(stopped.value)


def test_replies_can_be_pasted(tmp_path: Path) -> None:
    """Each ends with a line END; they go to the open asks in their order, and into files like all others."""
    terminal = Terminal("reply one\nwith END inside a line\nEND\nreply two\n END \n")
    replies: list[Reply] = []
    designer = ManualDesigner(config(manual_paste=True), search_dir=tmp_path, say=lambda _: None, terminal=terminal)
    designer.check()
    designer.answer([ask(0), ask(1)], replies.append)
    assert {r.ask_id: r.text for r in replies} == {
        "g02_c00_r0": "reply one\nwith END inside a line\n",
        "g02_c01_r0": "reply two\n",
    }
    assert designer.reply_path("g02_c01_r0").read_text() == "reply two\n"


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
