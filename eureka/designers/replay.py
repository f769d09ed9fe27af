"""A recorded search's replies, fed back by ask id: the same search again without an LLM.

A recording is a search folder with its `search.db`, or a folder made by `export_recording`: `recording.json`
and one `replies/<ask_id>.md` each, which can be kept in git. Replies belong to their ask by id, so their
order does not matter."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eureka.designers.base import Ask, DesignerConfig, Reply
from rl.record import read_json, write_atomic, write_json_atomic
from tasks.errors import UserError
from tasks.registry import is_file_ref

SCHEMA = 1
# Settings that a search's results depend on; endpoint, key and token budget do not matter here.
ESSENTIALS = (
    "samples",
    "generations",
    "repairs",
    "seed",
    "seeds_per_candidate",
    "confirm",
    "confirm_seeds",
    "halving",
    "init_reward",
    "feedback",
    "final_seeds",
    "train",
    "threads",
)
_WITHOUT: dict[str, Any] = {"halving": "off"}
"""What searches did not do that were recorded before it could be set."""


class ReplayDesigner:
    """Answers each ask with the recorded reply of the same id.

    Args:
        config: `replay_from` is the recording.
        task_name: the task that is searched; a recording of another task is refused.
    """

    name = "replay"

    def __init__(self, config: DesignerConfig, *, task_name: str | None = None) -> None:
        self.config = config
        self.task_name = task_name
        self._replies: dict[str, Reply] | None = None

    def check(self) -> None:
        """Reads the recording.

        Raises:
            UserError: none is named, it is missing, damaged or empty, or it is of another task.
        """
        folder = self._folder()
        self._replies = read_replies(folder)
        if not self._replies:
            raise UserError(f"the recording {folder} holds no replies; name another one with --replay-from.")
        if self.task_name:
            self._compare(self.task_name, folder)

    def _compare(self, task_name: str, folder: Path) -> None:
        """Raises UserError where the recording is of another task; a file cannot be compared with a name."""
        recorded = recorded_task(folder)
        searched = _portable(task_name)
        if recorded is None or is_file_ref(recorded) != is_file_ref(searched) or recorded == searched:
            return
        raise UserError(
            f"the recording {folder} is of task '{recorded}', not '{searched}': search that task, "
            "or name another recording with --replay-from."
        )

    def answer(self, asks: Sequence[Ask], on_reply: Callable[[Reply], None]) -> None:
        """Delivers the recorded replies; one that was not recorded is "empty", with an error naming it."""
        if self._replies is None:
            self.check()
        replies = self._replies or {}
        for task_name in {ask.context.task_name for ask in asks}:
            self._compare(task_name, self._folder())
        for ask in asks:
            missing = Reply(ask.ask_id, None, "empty", error=f"the recording has no reply for {ask.ask_id}")
            on_reply(replies.get(ask.ask_id, missing))

    def _folder(self) -> Path:
        if self.config.replay_from is None:
            raise UserError("the replay designer needs a recording: name one with --replay-from FOLDER.")
        folder = Path(self.config.replay_from)
        if not folder.is_dir():
            raise UserError(f"the recording {folder} is not a folder: expected search.db or replies/ in it.")
        return folder


def read_replies(folder: Path) -> dict[str, Reply]:
    """Every reply of a recording by ask id.

    Raises:
        UserError: the folder holds no recording, or it is damaged.
    """
    if (folder / "replies").is_dir():
        return _from_files(folder)
    if (folder / "search.db").is_file():
        return _from_database(folder / "search.db")
    raise UserError(f"{folder} holds no recording: expected search.db or replies/ in it.")


def recorded_task(folder: Path) -> str | None:
    """The task a recording was made on, where it says so."""
    for name in ("recording.json", "search.json"):
        if (folder / name).is_file():
            task = _read_json(folder / name).get("task")
            return _portable(task) if isinstance(task, str) else None
    return None


def _portable(task: str) -> str:
    """A task's reference without the folder its file lies in, which differs between machines."""
    return Path(task).name if is_file_ref(task) else task


def export_recording(search_dir: Path, out_dir: Path) -> Path:
    """Writes what `replay` needs of a finished search: `recording.json` and `replies/<ask_id>.md`, and
    what it found: `results.json`.

    Args:
        search_dir: a search folder with `search.json` and `search.db`, which is only read.
        out_dir: made if need be; replies of an earlier export in it are replaced.

    Returns:
        The path of `recording.json`, which is written last.

    Raises:
        UserError: there is nothing to export.
    """
    database = search_dir / "search.db"
    if not database.is_file():
        raise UserError(f"{search_dir} holds no search.db: name the folder of a search.")
    replies = _from_database(database)
    if not replies:
        raise UserError(f"the search in {search_dir} holds no replies yet: nothing to export.")
    settings = _read_json(search_dir / "search.json") if (search_dir / "search.json").is_file() else {}
    settings.update(_resolved_training(database))
    task = recorded_task(search_dir)
    folder = out_dir / "replies"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.md"):
        old.unlink()
    for ask_id, reply in sorted(replies.items()):
        if reply.text is not None:
            write_atomic(folder / f"{ask_id}.md", reply.text.encode())
    said = recorded_feedback(search_dir)
    recording = {
        "schema": SCHEMA,
        "task": task,
        "search": {name: settings[name] for name in ESSENTIALS if name in settings},
        "models": sorted({reply.model for reply in replies.values() if reply.model}),
        "replies": {ask_id: _facts(reply) for ask_id, reply in sorted(replies.items())},
        **({"feedback": said} if said else {}),
    }
    write_json_atomic(out_dir / "results.json", _results(database))
    path = out_dir / "recording.json"
    write_json_atomic(path, recording)
    return path


def recorded_best(folder: Path) -> tuple[str, str]:
    """The candidate with the highest fitness in an exported recording, and the reply that its program is in.

    Raises:
        UserError: the recording does not say, or lacks that reply.
    """
    results = folder / "results.json"
    listed = _read_json(results).get("candidates") if results.is_file() else None
    scored = [c for c in listed or [] if isinstance(c, dict) and isinstance(c.get("fitness"), float)]
    if not scored:
        raise UserError(
            f"the recording {folder} names no scored reward (results.json): replay it, or name another one."
        )
    best = max(scored, key=lambda candidate: candidate["fitness"])
    ask_id = f"{best.get('candidate_id')}_r{best.get('repairs')}"
    reply = read_replies(folder).get(ask_id)
    if reply is None or reply.text is None:
        raise UserError(
            f"the recording {folder} lacks the reply {ask_id}, its best one: make it anew with eureka record."
        )
    return str(best["candidate_id"]), reply.text


def recorded_settings(folder: Path) -> dict[str, Any]:
    """Task and settings of a recorded search, under the names of SearchConfig's fields.

    Raises:
        UserError: the folder holds no settings.
    """
    exported, searched = folder / "recording.json", folder / "search.json"
    if exported.is_file():
        recording = _read_json(exported)
        return {"task": recording.get("task"), **_WITHOUT, **recording.get("search", {})}
    if searched.is_file():
        settings = _read_json(searched)
        return {**_WITHOUT, **{name: settings[name] for name in ("task", *ESSENTIALS) if name in settings}}
    raise UserError(f"{folder} holds neither recording.json nor search.json: name a recorded search.")


def recorded_feedback(folder: Path) -> dict[int, str]:
    """What a person said in a recorded search, by generation; {} where nobody was asked.

    Raises:
        UserError: the recording is damaged.
    """
    exported, database = folder / "recording.json", folder / "search.db"
    if exported.is_file():
        said = _read_json(exported).get("feedback", {})
        return {int(generation): str(text) for generation, text in said.items()}
    with _reading(database) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name='feedback'").fetchone():
            return {}  # before version 3
        return dict(connection.execute("SELECT generation, text FROM feedback ORDER BY generation").fetchall())


def _resolved_training(database: Path) -> dict[str, Any]:
    """The whole training configuration, so that a preset that changes later does not change the recording."""
    with _reading(database) as connection:
        row = connection.execute("SELECT value FROM meta WHERE key='training'").fetchone()
    return {"train": json.loads(row[0])} if row else {}


def _results(database: Path) -> dict[str, Any]:
    """What the search found, for comparison with a replay: fitness of each candidate and of each final training."""
    candidate_fields = ["candidate_id", "status", "parent_id", "repairs", "sha256", "fitness", "fitness_std"]
    run_fields = ("run_id", "role", "seed", "status", "fitness", "fitness_std")
    with _reading(database) as connection:
        if any(row[1] == "rung" for row in connection.execute("PRAGMA table_info(candidates)")):
            candidate_fields += ["rung", "rung_fitness"]  # since version 3
        candidates = connection.execute(
            f"SELECT {', '.join(candidate_fields)} FROM candidates ORDER BY generation, idx"
        ).fetchall()
        runs = connection.execute(
            f"SELECT {', '.join(run_fields)} FROM runs WHERE role != 'candidate' ORDER BY role, seed"
        ).fetchall()
    return {
        "candidates": [dict(zip(candidate_fields, row, strict=True)) for row in candidates],
        "final": [dict(zip(run_fields, row, strict=True)) for row in runs],
    }


def _facts(reply: Reply) -> dict[str, Any]:
    facts = {
        "outcome": reply.outcome,
        "model": reply.model,
        "tokens_in": reply.tokens_in,
        "tokens_out": reply.tokens_out,
    }
    return facts | ({"error": reply.error} if reply.error else {})


def _from_files(folder: Path) -> dict[str, Reply]:
    """Replies of an exported folder: text from the files, outcome and tokens from recording.json."""
    facts: dict[str, Any] = {}
    if (folder / "recording.json").is_file():
        recording = _read_json(folder / "recording.json")
        if recording.get("schema", SCHEMA) != SCHEMA:
            found = recording.get("schema")
            raise UserError(f"{folder}/recording.json has schema {found!r}; this version reads {SCHEMA}.")
        facts = recording.get("replies") or {}
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted((folder / "replies").glob("*.md"))}
    replies: dict[str, Reply] = {}
    for ask_id in {**facts, **texts}:
        fact = facts.get(ask_id) or {}
        replies[ask_id] = Reply(
            ask_id=ask_id,
            text=texts.get(ask_id),
            outcome=fact.get("outcome") or "ok",
            model=fact.get("model"),
            tokens_in=fact.get("tokens_in"),
            tokens_out=fact.get("tokens_out"),
            error=fact.get("error"),
        )
    return replies


def _from_database(path: Path) -> dict[str, Reply]:
    """Replies of a search's database, opened read-only: a search that still runs is not disturbed."""
    with _reading(path) as connection:
        rows = connection.execute(
            "SELECT ask_id, text, outcome, model, tokens_in, tokens_out, cost, latency_s, error FROM replies"
        ).fetchall()
    return {row[0]: Reply(*row) for row in rows}


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    # Without a journal beside it nobody has the database open: as immutable it is read without making one, so
    # that a recording may lie on a medium that cannot be written.
    how = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "mode=ro&immutable=1"
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?{how}", uri=True)
        try:
            yield connection
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise UserError(f"{path} cannot be read as a search's database ({error}); name another recording.") from error


def _read_json(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a JSON {type(value).__name__}, expected an object.")
    return value
