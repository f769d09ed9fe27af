"""What the arguments of several commands mean: a run or checkpoint, a reward, settings as key=value."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from eureka.archive import Archive
from eureka.search_config import CONFIG_FILE, DATABASE, load_config
from rewards.gate import Verdict, admit
from rewards.library.library import load
from rewards.source import RewardSource
from rl.checkpoint import latest
from tasks import registry
from tasks.env import sample_signals
from tasks.errors import UserError, did_you_mean
from tasks.task import Task

REWARD_KINDS = ("human", "sparse", "zero")
SAMPLE_WORLDS = (64, 192)
"""Batch sizes that a program is tried at; the same as in a search."""


def existing_file(path: Path, what: str) -> Path:
    """`path`, if it is a file. Raises UserError with a near name in the same folder."""
    if path.is_file():
        return path
    if path.is_dir():
        raise UserError(f"{path} is a folder, expected a {what}.")
    raise UserError(f"there is no {what} {path}.{_near(path)}")


def find_checkpoint(place: Path) -> Path:
    """The checkpoint meant by a .pt file, a run's folder (its newest) or a search's folder (its best).

    Raises:
        UserError: there is none; the line says what the place holds instead.
    """
    if place.is_file():
        if place.suffix != ".pt":
            raise UserError(
                f"{place} is no checkpoint; expected a model_*.pt file, or the folder of a run or a search."
            )
        return place
    if not place.is_dir():
        raise UserError(f"there is no run or checkpoint {place}.{_near(place)}")
    best = [path for path in (place / "model.pt", place / "best" / "model.pt") if path.is_file()]
    damaged: list[str] = []
    found = latest(place, damaged.append) or (best[0] if best else None)
    if found is not None:
        for line in damaged:  # an older one is not taken in silence
            print(f"eureka: {line}", file=sys.stderr)
        return found
    if damaged:
        raise UserError(f"{damaged[0]} There is no other one.")
    if (place / CONFIG_FILE).is_file():
        raise UserError(
            f"the search in {place} has not kept a policy yet; finish it with eureka search --resume {place}."
        )
    if (place / "request.json").is_file():
        raise UserError(
            f"the run in {place} has saved no checkpoint yet; finish it with eureka train --resume {place}."
        )
    raise UserError(f"{place} holds no checkpoint; expected the folder of a run or a search.")


def judge(task: Task, text: str, origin: str) -> Verdict:
    """The gate's verdict on a program, tried on states of the task at two batch sizes."""
    samples = [sample_signals(task, worlds, seed=worlds) for worlds in SAMPLE_WORLDS]
    return admit(text, task.signal_table, samples, origin=origin)


def find_reward(word: str, task: Task, task_ref: str) -> RewardSource:
    """The reward meant by human, sparse, zero, a file (through the gate), or the folder of a search (its best).

    Raises:
        UserError: there is no such reward, the gate refuses the file (line and rule of the first problem), or the
            search is of another task or has no scored program.
    """
    if word in REWARD_KINDS:
        return load(task.name, word, registry.user_file(task))
    path = Path(word)
    if path.is_dir():
        return _best_of_search(path, task)
    if not path.is_file():
        hint = did_you_mean(word, REWARD_KINDS) or _near(path)
        raise UserError(
            f"there is no reward '{word}'; expected human, sparse, zero, a reward file or a search's folder.{hint}"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text ({error.reason}); save it as UTF-8.") from None
    verdict = judge(task, text, origin=str(path))
    if not verdict.accepted or verdict.source is None:
        raise UserError(f"{path} is refused: {first_problem(verdict)} All of it: eureka check {path} --task {task_ref}")
    return verdict.source


def first_problem(verdict: Verdict) -> str:
    """The first problem of a refused program in one line, with its line and rule, and how many more there are."""
    problem = verdict.problems[0]
    place = f"line {problem.line}, " if problem.line else ""
    more = f" And {len(verdict.problems) - 1} more." if len(verdict.problems) > 1 else ""
    stop = "" if problem.message.endswith((".", "?", "!")) else "."
    return f"{place}{problem.code}: {problem.message}{stop}{more}"


def parse_settings(pairs: Iterable[str]) -> dict[str, Any]:
    """`["num_envs=256", "ppo.gamma=0.98"]` as `{"num_envs": 256, "ppo": {"gamma": 0.98}}`.

    Values are read as JSON (numbers, true, false, [64, 64]), else taken as text; "64,64" is a list. Names and values
    are checked where they are used. Raises UserError where a pair is none or a name is given twice.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.strip():
            raise UserError(f"--set {pair}: expected NAME=VALUE, as in --set ppo.gamma=0.98.")
        place = found
        *groups, last = name.strip().split(".")
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                raise UserError(f"--set {pair}: '{group}' has a value already.")
        if last in place:
            raise UserError(f"--set {pair}: '{name}' is given twice.")
        place[last] = _value(text.strip())
    return found


def with_settings(base: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Settings of `--set` with options that have a flag of their own (None: not given). UserError if both are given."""
    for name, value in options.items():
        if value is not None:
            if name in base:
                raise UserError(f"{name} is given twice, by --{name.replace('_', '-')} and by --set.")
            base = {**base, name: value}
    return base


def _value(text: str) -> Any:
    for attempt in (text, f"[{text}]" if "," in text else text):
        try:
            return json.loads(attempt)
        except json.JSONDecodeError:
            continue
    return text


def _best_of_search(folder: Path, task: Task) -> RewardSource:
    if not (folder / DATABASE).is_file():
        raise UserError(
            f"{folder} holds no search ({DATABASE}); expected human, sparse, zero, a reward file or a search."
        )
    searched = registry.make(load_config(folder).task)
    if searched.name != task.name:
        raise UserError(f"the search in {folder} is of task '{searched.name}', not of '{task.name}'.")
    archive = Archive(folder / DATABASE, create=False, read_only=True)
    try:
        winner = archive.best()
    finally:
        archive.close()
    if winner is None or winner.source is None:
        raise UserError(f"the search in {folder} has no scored reward yet; choose another --reward.")
    return RewardSource(winner.source, f"{folder}:{winner.candidate_id}")


def _near(path: Path) -> str:
    """A name like the missing one, in the deepest folder of its path that exists."""
    parent = path.parent
    return did_you_mean(path.name, [item.name for item in parent.iterdir()]) if parent.is_dir() else ""
