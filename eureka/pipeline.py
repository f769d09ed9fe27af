"""From rewards to a robot that does as it is told, in one file: stages, each a command of ours, one after the other.

    [[stage]]
    name = "ant"
    command = "search"
    args = ["ant-command", "-n", "3"]

    [[stage]]
    name = "student"
    command = "distill"
    args = ["{ant}", "--steps", "20000"]

    [[stage]]
    name = "tour"
    command = "act"
    args = ["--task", "ant-tour", "--policy", "{student}", "--speed", "0", "--tours", "10"]

"{ant}" stands for the folder of that stage. A stage that was interrupted is resumed by its command where that can, and
begins in a fresh folder where not; the old one is kept beside it. One that is done is not run again, and may not have
been changed meanwhile. `pipeline.json` says how far it came and is written whole after each step; `pipeline.html` links
the stages' own pages.
"""

from __future__ import annotations

import json
import re
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill import train_request
from eureka.report import page_environment
from eureka.search_config import CONFIG_FILE
from rl import record
from rl.record import write_atomic, write_json_atomic
from tasks.errors import UserError, did_you_mean

STATE, PAGE = "pipeline.json", "pipeline.html"
RESUMABLE = {"search": CONFIG_FILE, "train": record.REQUEST, "distill": train_request.REQUEST}
"""Command that takes `--resume FOLDER` -> the file that its folder has from the start."""
COMMANDS = ("search", "train", "distill", "act")
DONE_CODES = {"act": (0, 1)}
"""Exit codes of a stage that is done: a tour that failed is a figure, and no fault of the pipeline."""
PAGES = ("report.html", "page.html")
INTERRUPTED = 130


@dataclass(frozen=True)
class Stage:
    """One command."""

    name: str
    """Its folder within the pipeline's, and what other stages call it by."""
    command: str
    """search, train, distill or act."""
    args: tuple[str, ...]
    """Its words, without the folder."""

    def words(self, folder: Path) -> list[str]:
        """The arguments with the folders of other stages in place of their names in braces."""
        return [re.sub(r"\{([\w-]+)\}", lambda found: str(folder / found[1]), word) for word in self.args]

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the stages that it reads."""
        return tuple(name for word in self.args for name in re.findall(r"\{([\w-]+)\}", word))


def read_pipeline(path: Path) -> tuple[Stage, ...]:
    """The stages of a TOML file.

    Raises:
        UserError: the file is missing or no TOML, or a stage is wrong; the line names it.
    """
    try:
        data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the pipeline {path}: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no TOML: {error}.") from None
    extra = set(data) - {"stage"}
    if extra:
        raise UserError(f"{path}: unknown '{sorted(extra)[0]}'; expected [[stage]] tables and nothing else.")
    rows = data.get("stage")
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{path} has no stage; expected [[stage]] tables with name, command and args.")
    stages: list[Stage] = []
    for number, row in enumerate(rows, 1):
        stages.append(_stage(f"{path}, stage {number}", row, [stage.name for stage in stages]))
    return tuple(stages)


def _stage(where: str, row: Any, earlier: Sequence[str]) -> Stage:
    if not isinstance(row, dict) or set(row) != {"name", "command", "args"}:
        found = ", ".join(row) if isinstance(row, dict) else str(row)
        raise UserError(f"{where} has {found or 'nothing'}; expected name, command and args.")
    name, command, args = row["name"], row["command"], row["args"]
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][\w-]*", name):
        raise UserError(f"{where}: its name is {name!r}; expected letters, digits, - and _: it is a folder's.")
    if name in earlier:
        raise UserError(f"{where}: the name '{name}' is taken.")
    if command not in COMMANDS:
        hint = did_you_mean(str(command), COMMANDS)
        raise UserError(f"{where}: its command is '{command}'; expected one of {', '.join(COMMANDS)}.{hint}")
    if not isinstance(args, list) or not all(isinstance(word, str | int | float) for word in args):
        raise UserError(f"{where}: args is {str(args)[:60]}; expected a list of words and numbers.")
    stage = Stage(name, command, tuple(map(str, args)))
    for word in ("--out", "--resume"):
        if word in stage.args:
            raise UserError(f"{where}: {word} is the pipeline's to say; leave it away.")
    for needed in stage.needs:
        if needed not in earlier:
            hint = did_you_mean(needed, earlier)
            raise UserError(f"{where} reads '{{{needed}}}', which is no stage before it.{hint}")
    return stage


def run_pipeline(
    stages: Sequence[Stage], folder: Path, run: Callable[[list[str]], int], say: Callable[[str], None]
) -> int:
    """Run what is not done yet. Returns 0, or the exit code of the stage that failed.

    Args:
        stages: In order.
        folder: Of the pipeline; is made.
        run: A command's words to its exit code.
        say: Takes a line for people.

    Raises:
        UserError: a stage that is done was changed, or the folder is another pipeline's.
    """
    state = _read_state(folder, stages)
    folder.mkdir(parents=True, exist_ok=True)
    for number, stage in enumerate(stages, 1):
        if state.get(stage.name, {}).get("done"):
            say(f"stage {number} of {len(stages)}, {stage.name}: done before")
            continue
        words = _words(stage, folder)
        say(f"stage {number} of {len(stages)}, {stage.name}: eureka {' '.join(words)}")
        before_s = state.get(stage.name, {}).get("seconds", 0.0)
        began = time.monotonic()
        _write(folder, stages, state | {stage.name: _row(stage, None, before_s)})
        code = run(words)
        done = code in DONE_CODES.get(stage.command, (0,))
        state[stage.name] = _row(stage, code, before_s + time.monotonic() - began, done=done)
        _write(folder, stages, state)
        if not done:
            say(f"stage {stage.name} ended with exit code {code}; once it is mended, the same command goes on there.")
            return code
    return 0


def _words(stage: Stage, folder: Path) -> list[str]:
    """The command's words: a fresh start, or going on with what an interrupted one left."""
    own = folder / stage.name
    if own.exists():
        if stage.command in RESUMABLE and (own / RESUMABLE[stage.command]).is_file():
            return [stage.command, "--resume", str(own)]
        old = next(place for n in range(1, 10_000) if not (place := own.with_name(f"{own.name}.{n}")).exists())
        own.rename(old)
    return [stage.command, *stage.words(folder), "--out", str(own)]


def _row(stage: Stage, code: int | None, seconds: float, *, done: bool = False) -> dict[str, Any]:
    return {"command": stage.command, "args": list(stage.args), "code": code, "seconds": seconds, "done": done}


def _read_state(folder: Path, stages: Sequence[Stage]) -> dict[str, Any]:
    path = folder / STATE
    if not path.is_file():
        return {}
    try:
        state = json.loads(path.read_text(encoding="utf-8"))["stages"]
        rows = {name: (row["command"], tuple(row["args"]), row["done"]) for name, row in state.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path} is damaged; choose another --out.") from None
    known = {stage.name: stage for stage in stages}
    for name, (command, args, done) in rows.items():
        stage = known.get(name)
        if done and (stage is None or (stage.command, stage.args) != (command, args)):
            what = "is gone from the file" if stage is None else "was changed"
            raise UserError(f"stage '{name}' was done in {folder} and {what} since; choose another --out.")
    return state


def _write(folder: Path, stages: Sequence[Stage], state: Mapping[str, Any]) -> None:
    write_json_atomic(folder / STATE, {"stages": state})
    rows = [_page_row(folder, stage, state.get(stage.name)) for stage in stages]
    page = page_environment().get_template("pipeline.html.j2").render(title=folder.resolve().name, rows=rows)
    write_atomic(folder / PAGE, page.encode("utf-8", errors="replace"))


def _page_row(folder: Path, stage: Stage, row: Mapping[str, Any] | None) -> dict[str, Any]:
    own = folder / stage.name
    if row is None:
        word = "to come"
    elif row["done"]:
        word = "done"
    else:
        word = "running or interrupted" if row["code"] in (None, INTERRUPTED) else f"failed, exit code {row['code']}"
    page = next((name for name in PAGES if (own / name).is_file()), None)
    return {
        "name": stage.name,
        "command": " ".join(["eureka", stage.command, *stage.args]),
        "word": word,
        "bad": row is not None and not row["done"] and row["code"] not in (None, INTERRUPTED),
        "seconds": None if row is None else row["seconds"],
        "folder": stage.name if own.exists() else None,
        "page": None if page is None else f"{stage.name}/{page}",
        "figures": _figures(own),
    }


def _figures(own: Path) -> str:
    """What a stage's result.json says in one line, where it has one."""
    try:
        result = json.loads((own / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    if "tours" in result:
        return f"{result['successes']} of {len(result['tours'])} tours done"
    return f"fitness {result['fitness']:.4g}" if isinstance(result.get("fitness"), float) else ""
