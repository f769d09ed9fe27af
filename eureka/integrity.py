"""Is the folder of a search sound? Reads everything that a resume, a report or a later user would rely on.

Nothing is changed, not even SQLite's log: a database that a killed search left with one is read as a copy. While a
search runs its files may be ahead of what the database said a moment before, never behind it.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eureka.archive import Archive, Run
from eureka.candidate import Candidate, Status, ask_id, best
from eureka.database import connect_read_only
from eureka.designers.base import Reply
from eureka.report import REPORT
from eureka.score import over_seeds
from eureka.search_config import CONFIG_FILE, DATABASE, DONE, SearchConfig, in_use, load_config
from rewards.source import RewardSource
from rl.checkpoint import load_state, read_meta
from rl.record import RESULT, finite_json, read_json, read_request
from tasks.errors import UserError

_NO_RESULT = "WorkerDied"  # eureka.training: the worker left no result.json


@dataclass(frozen=True)
class Fault:
    """Something wrong."""

    place: str
    """File or id, relative to the search's folder."""
    what: str
    way_out: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what}; {self.way_out}"


@dataclass(frozen=True)
class Contents:
    """What the database of a search says."""

    candidates: tuple[Candidate, ...]
    replies: dict[str, Reply]
    runs: tuple[Run, ...]


def examine(folder: Path) -> list[Fault]:
    """Everything wrong with a search's folder; [] where it is sound.

    Raises:
        UserError: there is no such folder, or it holds no search.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; expected the folder of a search, such as runs/TASK/TIME.")
    if not (folder / CONFIG_FILE).exists() and not (folder / DATABASE).exists():
        raise UserError(f"{folder} holds neither {CONFIG_FILE} nor {DATABASE}; expected the folder of a search.")
    faults: list[Fault] = []
    config: SearchConfig | None = None
    try:
        config = load_config(folder)
    except UserError as error:
        faults.append(Fault(CONFIG_FILE, str(error), "restore it from a copy; the search cannot be resumed without"))
    if not (folder / DATABASE).exists():
        if (folder / DONE).exists() or (folder / "candidates").exists():
            faults.append(Fault(DATABASE, "it is missing, though the search was begun", "restore it from a copy"))
        return faults
    try:
        contents = _read(folder)
    except UserError as error:
        return [*faults, Fault(DATABASE, str(error), "restore it from a copy, or start a new search")]
    faults += _database_faults(folder)
    by_candidate: dict[tuple[str, str], list[Run]] = {}
    for run in contents.runs:
        if run.candidate_id is not None and run.role in ("candidate", "rung"):
            by_candidate.setdefault((run.candidate_id, _part(run)), []).append(run)
    for candidate in contents.candidates:
        own = by_candidate.get((candidate.equal_to or candidate.candidate_id, _ended_at(candidate)), [])
        faults += _candidate_faults(candidate, contents, own, config)
    for run in contents.runs:
        faults += _run_faults(folder, run)
    faults += _checkpoint_faults(folder)
    faults += _end_faults(folder, contents, config)
    return faults


# -- the database


@contextmanager
def _readable(folder: Path) -> Iterator[Path]:
    """The database, or a copy of it where looking into it would change its log."""
    database = folder / DATABASE
    log = folder / f"{DATABASE}-wal"
    if not log.exists() or in_use(folder):
        yield database
        return
    with tempfile.TemporaryDirectory(prefix="eureka-doctor-") as place:
        for path in (database, log):
            shutil.copyfile(path, Path(place) / path.name)
        yield Path(place) / DATABASE


def _read(folder: Path) -> Contents:
    with _readable(folder) as database:
        archive = Archive(database, create=False, read_only=True)
        try:
            return Contents(tuple(archive.candidates()), archive.replies(), tuple(archive.runs()))
        except (ValueError, KeyError, TypeError, sqlite3.Error) as error:
            raise UserError(f"its rows cannot be read ({error})") from error
        finally:
            archive.close()


def _database_faults(folder: Path) -> Iterator[Fault]:
    with _readable(folder) as database, closing(connect_read_only(database)) as db:
        for table, row, parent, _ in db.execute("PRAGMA foreign_key_check"):
            yield Fault(DATABASE, f"row {row} of {table} belongs to no row of {parent}", "restore it from a copy")


# -- candidates


def _candidate_faults(
    candidate: Candidate, contents: Contents, runs: list[Run], config: SearchConfig | None
) -> Iterator[Fault]:
    name, status = candidate.candidate_id, candidate.status
    again = "restore search.db from a copy"
    if status is not Status.PROPOSED:
        for attempt in range(candidate.repairs + 1):
            if ask_id(name, attempt) not in contents.replies:
                yield Fault(name, f"it is {status}, and reply {ask_id(name, attempt)} is missing", again)
    if status in (Status.ACCEPTED, Status.TRAINING, Status.TRAINED, Status.FAILED, Status.ELIMINATED):
        if not candidate.source:
            yield Fault(name, f"it is {status} without a program", again)
        elif RewardSource(candidate.source).sha256 != candidate.reward_sha256:
            yield Fault(name, "its program is not the one whose hash was noted", again)
    if status in (Status.REFUSED, Status.NO_REPLY, Status.FAILED, Status.ELIMINATED) and not candidate.error:
        yield Fault(name, f"it is {status} without a reason", again)
    if status is not Status.TRAINED and candidate.fitness is not None:
        yield Fault(name, f"it is {status} and has a fitness", again)
    if status is not Status.ELIMINATED and candidate.rung_fitness is not None:
        yield Fault(name, f"it is {status} and has the fitness of a rung", again)
    if status in (Status.TRAINED, Status.ELIMINATED):
        yield from _fitness_faults(candidate, runs, config)
    if status is Status.FAILED and all(run.status == "ok" for run in runs):
        yield Fault(name, "it failed, and none of its trainings did", again)


def _part(run: Run) -> str:
    """Which part of a candidate's training a run is: "rung1", or "" for the whole."""
    return run.run_id.rpartition("_")[2] if run.role == "rung" else ""


def _ended_at(candidate: Candidate) -> str:
    """The part of its training that its state is the result of, named like `_part`."""
    run_id = str((candidate.result or {}).get("run_id", ""))
    return run_id.rpartition("_")[2] if "_rung" in run_id else ""


def _fitness_faults(candidate: Candidate, runs: list[Run], config: SearchConfig | None) -> Iterator[Fault]:
    name = candidate.candidate_id
    # In a search that was cut off, further seeds of a leader may be there that its fitness does not know yet.
    told = candidate.fitness if candidate.status is Status.TRAINED else candidate.rung_fitness
    seeds = candidate.seeds or len((candidate.result or {}).get("fitness_by_seed", (told,)))
    counted = sorted(runs, key=lambda run: run.seed)[:seeds]
    good = [run.fitness for run in counted if run.status == "ok" and run.fitness is not None]
    least = max(seeds, config.seeds_per_candidate if config else 1)
    mean = over_seeds(good)
    if len(good) < least:
        yield Fault(
            name, f"it is {candidate.status}, and {len(good)} of {least} trainings are there", "restore search.db"
        )
    elif mean is not None and not _equal(mean.mean, told):
        what = f"its fitness is {told!r}, the mean of its trainings {mean.mean!r}"
        yield Fault(name, what, "restore search.db from a copy")


def _equal(first: float | None, second: float | None) -> bool:
    if first is None or second is None:
        return first is second
    return math.isclose(first, second, rel_tol=1e-9, abs_tol=1e-12) or (math.isnan(first) and math.isnan(second))


# -- runs


def _run_faults(folder: Path, run: Run) -> Iterator[Fault]:
    place = folder / run.folder
    if not place.resolve().is_relative_to(folder.resolve()):
        yield Fault(run.run_id, f"its folder {run.folder} is outside of the search", "restore search.db from a copy")
        return
    if (run.result.get("error") or {}).get("type") == _NO_RESULT:
        return
    way_out = f"restore {run.folder} from a copy; the archive still has its fitness"
    try:
        request, result = read_request(place), read_json(place / RESULT)
    except UserError as error:
        yield Fault(run.run_id, str(error), way_out)
        return
    if request.run_id != run.run_id:
        yield Fault(run.run_id, f"its request is for {request.run_id}", way_out)
    if not isinstance(result, dict) or _told(result) != _told(finite_json(run.result)):
        yield Fault(f"{run.folder}/{RESULT}", "it is not the result that the archive has", way_out)
    elif not _equal(run.fitness, _number(result.get("fitness"))) or run.status != result.get("status"):
        yield Fault(run.run_id, "its row and its result differ", "restore search.db from a copy")
    kept = run.result.get("checkpoint")
    if kept is not None and not ((place / kept).is_file() and (place / kept).with_suffix(".json").is_file()):
        yield Fault(f"{run.folder}/{kept}", "the checkpoint or its .json is missing", way_out)


def _number(value: Any) -> float | None:
    # SQLite keeps no NaN, and a result writes it as a text.
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


# -- files


def _told(result: dict[str, Any]) -> dict[str, Any]:
    """A result without what belongs to its starts: the name of the last, and how earlier ones ended."""
    return {name: value for name, value in result.items() if name not in ("attempt", "attempts")}


def _checkpoint_faults(folder: Path) -> Iterator[Fault]:
    places = ("candidates/*/*/model_*.pt", "final/*/model_*.pt", "best/model.pt")
    for path in sorted(found for pattern in places for found in folder.glob(pattern)):
        if not path.with_suffix(".json").exists():
            continue  # a training that was cut off between the two: it starts afresh, or has an older pair
        try:
            meta = read_meta(path)
            told = meta.get("sha256")
            if told is None:
                load_state(path)
            elif hashlib.sha256(path.read_bytes()).hexdigest() != told:
                raise UserError("its bytes are not those whose hash was noted")
        except UserError as error:
            way_out = "delete best/ and resume" if path.parent.name == "best" else "train it again, or restore it"
            yield Fault(str(path.relative_to(folder)), str(error), way_out)


def _end_faults(folder: Path, contents: Contents, config: SearchConfig | None) -> Iterator[Fault]:
    resume = f"go on with eureka search --resume {folder}"
    if contents.candidates:
        page = folder / REPORT
        if not page.is_file() or not page.read_bytes().rstrip().endswith(b"</html>"):
            yield Fault(REPORT, "it is missing or cut off", f"write it anew with eureka report {folder}")
    for path in sorted(folder.glob("candidates/*/*/" + RESULT)) + sorted(folder.glob("final/*/" + RESULT)):
        try:
            read_json(path)
        except UserError as error:
            yield Fault(str(path.relative_to(folder)), str(error), resume)
    if not (folder / DONE).exists():
        return
    winner = best(contents.candidates)
    wanted = {"best": winner.candidate_id if winner else None, "fitness": winner.fitness if winner else None}
    try:
        told = read_json(folder / DONE)
    except UserError as error:
        told = str(error)
    if told != json.loads(json.dumps(wanted)):
        yield Fault(DONE, f"it says {json.dumps(told)}, the archive {json.dumps(wanted)}", resume)
    open_ones = [c.candidate_id for c in contents.candidates if not c.status.settled]
    if open_ones:
        yield Fault(DONE, f"it is there, and {', '.join(open_ones[:5])} are not settled", resume)
    planned = config.samples * config.generations if config else len(contents.candidates)
    planned += config is not None and config.init_reward is not None
    if len(contents.candidates) < planned:
        yield Fault(DONE, f"it is there, with {len(contents.candidates)} of {planned} candidates", resume)
    if winner is None:
        return
    finals = [run for run in contents.runs if run.role == "final"]
    if config and len(finals) < config.final_seeds:
        yield Fault(DONE, f"it is there, with {len(finals)} of {config.final_seeds} final trainings", resume)
    program = folder / "best" / "reward.py"
    if not program.is_file() or program.read_text(encoding="utf-8", errors="replace") != winner.source:
        yield Fault("best/reward.py", f"it is not the program of {winner.candidate_id}", f"delete best/ and {resume}")
