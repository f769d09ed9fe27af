"""Replay and create: replies by id from a database or an exported folder, and the errors of both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eureka.archive import Archive
from eureka.designers.base import Ask, DesignContext, DesignerConfig, Reply
from eureka.designers.create import create
from eureka.designers.replay import ReplayDesigner, export_recording
from tasks.errors import UserError
from tasks.signals import Signal, SignalTable

TABLE = SignalTable([Signal("actions", 2, "1", "joint", "action", "actions")])
REPLIES = (
    Reply("g01_c00_r0", "first: `é` ```x```", "ok", "loop-1", 10, 20, 0.5, 1.5),
    Reply("g01_c01_r0", None, "refused", "loop-1", 10, 0, None, 0.1, "the model refused"),
    Reply("g01_c01_r1", "second", "truncated", "loop-1", None, None, None, None, "cut off"),
)


def ask(ask_id: str, task: str = "ant-run") -> Ask:
    return Ask(ask_id, ask_id[:7], int(ask_id[-1]), (), DesignContext(task, "move", TABLE))


def recorded(folder: Path, task: str = "ant-run", replies=REPLIES) -> Path:
    """A search folder as a search leaves it."""
    folder.mkdir(parents=True)
    settings = {
        "schema": 1,
        "task": task,
        "samples": 2,
        "generations": 1,
        "seed": 3,
        "time_limit_s": 9.0,
        "designer": {},
    }
    (folder / "search.json").write_text(json.dumps(settings))
    archive = Archive(folder / "search.db")
    archive.add_asks([ask(reply.ask_id) for reply in replies])
    for reply in replies:
        archive.add_reply(reply)
    archive.close()
    return folder


def replay(folder: Path | None, asks: list[Ask], task: str | None = None) -> dict[str, Reply]:
    designer = ReplayDesigner(DesignerConfig(replay_from=folder), task_name=task)
    designer.check()
    replies: dict[str, Reply] = {}
    designer.answer(asks, lambda reply: replies.update({reply.ask_id: reply}))
    return replies


def test_a_database_is_replayed_by_id(tmp_path: Path) -> None:
    """Asked for in another order than recorded, and with an id that was not."""
    ids = ["g01_c01_r1", "g01_c02_r0", "g01_c00_r0", "g01_c01_r0"]
    replies = replay(recorded(tmp_path / "s"), [ask(i) for i in ids], "ant-run")
    assert {r.ask_id: r for r in REPLIES} == {k: v for k, v in replies.items() if k != "g01_c02_r0"}
    missing = replies["g01_c02_r0"]
    assert (missing.outcome, missing.text) == ("empty", None)
    assert "g01_c02_r0" in (missing.error or "")


def test_an_exported_recording_gives_the_same_replies(tmp_path: Path) -> None:
    search = recorded(tmp_path / "s")
    before = {path.name: path.read_bytes() for path in search.iterdir()}
    out = tmp_path / "kept"
    (out / "replies").mkdir(parents=True)
    (out / "replies" / "g09_c09_r0.md").write_text("of an earlier export")
    assert export_recording(search, out) == out / "recording.json"
    assert {path.name: path.read_bytes() for path in search.iterdir()} == before
    asks = [ask(reply.ask_id) for reply in REPLIES] + [ask("g09_c09_r0")]
    replies = replay(out, asks, "ant-run")
    for reply in REPLIES:
        again = replies[reply.ask_id]
        assert (again.text, again.outcome, again.model, again.error) == (
            reply.text,
            reply.outcome,
            reply.model,
            reply.error,
        )
        assert (again.tokens_in, again.tokens_out) == (reply.tokens_in, reply.tokens_out)
    assert replies["g09_c09_r0"].outcome == "empty"
    recording = json.loads((out / "recording.json").read_text())
    assert recording["task"] == "ant-run"
    assert recording["search"] == {"samples": 2, "generations": 1, "seed": 3}
    assert recording["models"] == ["loop-1"]


def test_no_folder_of_this_machine_is_exported(tmp_path: Path) -> None:
    search = recorded(tmp_path / "s", task="/home/somebody/tasks/my_task.py:Mine")
    text = export_recording(search, tmp_path / "kept").read_text()
    assert "somebody" not in text
    assert json.loads(text)["task"] == "my_task.py:Mine"
    replay(tmp_path / "kept", [ask("g01_c00_r0", task="mine")], "/elsewhere/my_task.py:Mine")
    with pytest.raises(UserError, match=r"is of task 'my_task.py:Mine', not 'other.py'"):
        replay(tmp_path / "kept", [], "/elsewhere/other.py")


def test_bare_replies_are_a_recording(tmp_path: Path) -> None:
    (tmp_path / "replies").mkdir()
    (tmp_path / "replies" / "g01_c00_r0.md").write_text("by hand")
    assert replay(tmp_path, [ask("g01_c00_r0")])["g01_c00_r0"].text == "by hand"


def test_a_recording_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    damaged = recorded(tmp_path / "damaged")
    (damaged / "search.db").write_bytes(b"SQLite format 3\0" + b"garbage" * 100)
    other = tmp_path / "other"
    (other / "replies").mkdir(parents=True)
    (other / "recording.json").write_text("{")
    newer = tmp_path / "newer"
    (newer / "replies").mkdir(parents=True)
    (newer / "recording.json").write_text('{"schema": 99}')
    for folder, task, words in (
        (None, None, "--replay-from"),
        (tmp_path / "nowhere", None, "not a folder"),
        (tmp_path, None, "holds no recording"),
        (recorded(tmp_path / "empty", replies=()), None, "holds no replies"),
        (recorded(tmp_path / "ant"), "humanoid-run", "is of task 'ant-run', not 'humanoid-run'"),
        (damaged, None, "cannot be read as a search's database"),
        (other, None, "not valid JSON"),
        (newer, None, "schema 99"),
    ):
        with pytest.raises(UserError, match=words) as refused:
            replay(folder, [], task)
        assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match="is of task"):
        replay(tmp_path / "ant", [ask("g01_c00_r0", task="humanoid-run")])
    for folder in (tmp_path / "nowhere", tmp_path / "empty"):
        with pytest.raises(UserError, match=r"search\.db|nothing to export"):
            export_recording(folder, tmp_path / "out")


def test_auto_says_what_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    assert create(DesignerConfig(), search_dir=tmp_path, say=said.append).name == "evolution"
    assert len(said) == 1
    assert "without an LLM" in said[0]
    monkeypatch.setenv("OPENAI_API_KEY", "sk-something")
    assert create(DesignerConfig(), search_dir=tmp_path, say=said.append).name == "openai"
    assert len(said) == 1


def test_every_designer_can_be_named(tmp_path: Path) -> None:
    for name in ("openai", "evolution", "manual", "replay"):
        assert create(DesignerConfig(designer=name), search_dir=tmp_path, say=lambda _: None).name == name
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"designer": "evolutoin"}, "Did you mean 'evolution'"),
        ({"parallel": 0}, "--parallel is 0"),
        ({"max_tokens_total": -5}, "--max-tokens-total is -5"),
        ({"max_tokens_total": 0}, "--max-tokens-total is 0"),
        ({"retries": -1}, "--retries is -1"),
        ({"request_timeout_s": float("nan")}, "--request-timeout-s is nan"),
        ({"temperature": -0.1}, "--temperature is -0.1"),
    ],
)
def test_settings_that_cannot_work(settings: dict, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        create(DesignerConfig(**settings), search_dir=tmp_path)
