"""A reward by name: one of a task's own, a file, or the best of a search or of a recording."""

from __future__ import annotations

from pathlib import Path

from eureka.archive import Archive
from eureka.designers.replay import recorded_best, recorded_task
from eureka.search_config import DATABASE, load_config
from rewards.gate import Verdict, admit
from rewards.library.library import load
from rewards.source import RewardSource
from tasks import registry
from tasks.env import sample_signals
from tasks.errors import UserError, did_you_mean
from tasks.task import Task

REWARD_KINDS = ("human", "sparse", "zero")
SAMPLE_WORLDS = (64, 192)
"""Batch sizes that a program is tried at, in a search too."""


def judge(task: Task, text: str, origin: str) -> Verdict:
    """The gate's verdict on a program, tried on states of the task at two batch sizes."""
    samples = [sample_signals(task, worlds, seed=worlds) for worlds in SAMPLE_WORLDS]
    return admit(text, task.signal_table, samples, origin=origin)


def find_reward(word: str, task: Task, task_ref: str) -> RewardSource:
    """The reward meant by human, sparse, zero, a file (through the gate), or the folder of a search or of a
    recording (its best).

    Raises:
        UserError: there is no such reward, the gate refuses the file (line and rule of the first problem), or the
            search is of another task or has no scored program.
    """
    if word in REWARD_KINDS:
        return load(task.name, word, registry.user_file(task))
    path = Path(word)
    if path.is_dir():
        recording = (path / "replies").is_dir()
        return _best_of_recording(path, task, task_ref) if recording else _best_of_search(path, task)
    if not path.is_file():
        hint = did_you_mean(word, REWARD_KINDS) or near_name(path)
        raise UserError(
            f"there is no reward '{word}'; expected human, sparse, zero, a reward file, or the folder of a "
            f"search or a recording.{hint}"
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


def _best_of_search(folder: Path, task: Task) -> RewardSource:
    if not (folder / DATABASE).is_file():
        raise UserError(
            f"{folder} holds no search ({DATABASE}); expected human, sparse, zero, a reward file, or the folder "
            "of a search or a recording."
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


def _best_of_recording(folder: Path, task: Task, task_ref: str) -> RewardSource:
    """Its reply goes through the gate again: a recording may come from anywhere."""
    recorded = recorded_task(folder)
    if recorded is not None and recorded not in (task.name, Path(task_ref).name):
        raise UserError(f"the recording {folder} is of task '{recorded}', not of '{task.name}'.")
    name, reply = recorded_best(folder)
    origin = f"{folder}:{name}"
    verdict = judge(task, reply, origin)
    if not verdict.accepted or verdict.source is None:
        raise UserError(f"{origin} is refused: {first_problem(verdict)}")
    return verdict.source


def near_name(path: Path) -> str:
    """A name like the missing one, in the deepest folder of its path that exists."""
    parent = path.parent
    return did_you_mean(path.name, [item.name for item in parent.iterdir()]) if parent.is_dir() else ""
