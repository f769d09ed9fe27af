"""Orders to the kill driver, and what a search's folder comes to, so that two of them can be compared."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from eureka.integrity import examine

ROOT = Path(__file__).parents[2]
CONFIG = {"samples": 2, "generations": 2, "confirm": 1, "confirm_seeds": 1}
KILLED, INTERRUPTED, REFUSED = -signal.SIGKILL, 130, 7
"""How the process of a search may end, beside 0."""
IN_FLIGHT = ("paid, answer not stored",)
"""Steps at which an answer that was paid for is lost with the process."""
TIMES = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d( UTC)?")


class Driver:
    """The process that forks searches; see `tests.eureka.kill_driver`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.eureka.kill_driver"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(place / "driver.log").open("wb"),
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            text=True,
        )

    def order(self, *orders: dict[str, Any]) -> list[dict[str, Any]]:
        """Run searches at the same time; {"status", "wall_s"} of each."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(list(orders)) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, (self.place / "driver.log").read_text()[-2000:]
        return json.loads(line)

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=120)


class Case:
    """One search in a folder of its own, with what was paid and trained for it."""

    def __init__(self, driver: Driver, name: str) -> None:
        self.driver, self.place = driver, driver.place / re.sub(r"\W+", "-", name)
        self.place.mkdir()
        self.folder, self.log = self.place / "run", self.place / "log"
        self.log.touch()
        self.lost: Counter[str] = Counter()
        self.adopted: dict[str, tuple[int, int]] = {}

    def run(self, **more: Any) -> int:
        """The status of one process on the folder; after a kill, what may be neither paid nor trained again is noted."""
        status = self.driver.order(self.orders(**more))[0]["status"]
        self.look()
        return status

    def orders(self, **more: Any) -> dict[str, Any]:
        """An order for this folder."""
        verdicts = self.driver.place / "verdicts.pkl"
        return {"folder": str(self.folder), "log": str(self.log), "verdicts": str(verdicts), "config": CONFIG, **more}

    def logged(self, kind: str) -> list[str]:
        """What was noted: "paid" asks, "started" runs, "refused" and "said" lines."""
        lines = [line.partition(" ") for line in self.log.read_text().splitlines()]
        return [rest for word, _, rest in lines if word == kind]

    def look(self) -> None:
        """Note what was paid for and not stored (lost with the kill), and which results there are."""
        stored = Counter(row[0] for row in rows(self.folder, "SELECT ask_id FROM exchanges"))
        stored |= Counter(row[0] for row in rows(self.folder, "SELECT ask_id FROM replies"))
        paid = Counter(self.logged("paid"))
        self.lost = Counter({name: count - stored[name] for name, count in paid.items() if count > stored[name]})
        started = Counter(self.logged("started"))
        for path in self.folder.rglob("result.json"):
            name = json.loads(path.read_text())["run_id"]
            if name in started:  # else: copied from a baseline
                mark = (path.stat().st_mtime_ns, started[name])
                assert self.adopted.setdefault(name, mark) == mark, f"{name} had ended and was trained again"

    def finish(self) -> dict[str, Any]:
        """Go on to the end, and what is there then."""
        assert self.run() == 0, (self.driver.place / "driver.log").read_text()[-3000:]
        return whole(self.folder)


def violations(case: Case, undisturbed: dict[str, Any], step: str, **more: Any) -> list[str]:
    """Kill a search at a step, resume it, and say what was lost or done twice."""
    status = case.driver.order(case.orders(step=step, **more))[0]["status"]
    assert status == KILLED, f"'{step}' never came"
    broken = []
    try:
        case.look()
    except AssertionError as error:
        return [str(error)]
    if (case.folder / "search.json").exists():
        broken += [f"after the kill: {fault}" for fault in examine(case.folder)]
    broken += [f"{name} was paid for and is lost" for name in case.lost if step not in IN_FLIGHT]
    left_out = {key: value for key, value in more.items() if key in ("plain", "without", "config")}
    try:
        if case.run(**left_out) != 0:
            return [*broken, "it does not resume"]
    except AssertionError as error:
        return [*broken, str(error)]
    return broken + different(undisturbed, whole(case.folder))


def different(undisturbed: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Names of what two searches left that is not the same."""
    return [name for name in {**undisturbed, **found} if undisturbed.get(name) != found.get(name)]


def rows(folder: Path, query: str) -> list[tuple]:
    """Rows of the search's database; [] where there is none. AssertionError where it is damaged."""
    database = folder / "search.db"
    if not database.exists():
        return []
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
            return db.execute(query).fetchall()
    except sqlite3.DatabaseError as error:
        raise AssertionError(f"the database is damaged: {error}") from error


def whole(folder: Path) -> dict[str, Any]:
    """All that a finished search leaves, apart from times and from how often it was stopped."""
    stamps = ("created_s", "updated_s", "time_s", "wall_s")
    found: dict[str, Any] = {"faults": [str(fault) for fault in examine(folder)]}
    with closing(sqlite3.connect(f"file:{folder}/search.db?mode=ro", uri=True)) as db:
        db.row_factory = sqlite3.Row
        for table, key in (("asks", "ask_id"), ("replies", "ask_id"), ("exchanges", "id"), ("candidates", "candidate_id"),
                           ("runs", "run_id"), ("meta", "key")):  # fmt: skip
            kept = [dict(row) for row in db.execute(f"SELECT * FROM {table} ORDER BY {key}")]
            found[table] = [{k: v for k, v in row.items() if k not in stamps} for row in kept]
        found["exchanges"] = sorted((row["ask_id"], row["body"]) for row in found["exchanges"])
        query = "SELECT text FROM events WHERE kind NOT IN ('started', 'resumed', 'stopped') ORDER BY id"
        found["events"] = [row[0] for row in db.execute(query)]
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or name == "lock" or name.startswith("search.db"):
            continue
        found[name] = _content(path, folder)
    return found


def _content(path: Path, folder: Path) -> Any:
    if path.suffix == ".pt":
        return path.stat().st_size
    text = path.read_text().replace(str(folder.parent), "PLACE")
    if path.name in ("request.json", "result.json"):
        return {key: value for key, value in json.loads(text).items() if key != "attempt"}
    if path.name == "report.html":
        return report_text(text)
    return text


def report_text(page: str) -> str:
    """A page without moments and without the lines that tell of starts and stops."""
    page = re.sub(
        r"<li[^>]*>(?:(?!</li>).)*?(?:started|resumed|stopped)(?:(?!</li>).)*?</li>", "", page, flags=re.DOTALL
    )
    page = re.sub(
        r"<tr[^>]*>(?:(?!</tr>).)*?>(?:started|resumed|stopped)<(?:(?!</tr>).)*?</tr>", "", page, flags=re.DOTALL
    )
    page = re.sub(r"\d+ entr(y|ies)", "N entries", page)
    return re.sub(r"\s+", " ", TIMES.sub("TIME", page))
