"""One self-contained HTML page for a session of `eureka act`: what was wanted, seen, said and done, and what failed.

A function of the session's folder and figures alone. Pictures are embedded up to a limit, those of the newest words
left out last; everything is in events.jsonl beside it. Text of a planner is escaped by the templates, and the page's
content security policy admits no script.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eureka.act_session import Session, Tour
from eureka.report import page_environment
from rl.record import write_atomic

PAGE = "page.html"
TOURS_SHOWN = 20
"""Tours whose events are on the page; failed ones come first."""
EVENTS_SHOWN = 120
"""Rows of a tour's table."""
PICTURES_SHOWN = 40
"""Pictures of a tour that are embedded."""
WORDS = {
    "told": "told",
    "failed": "no answer",
    "lapse": "dropped",
    "dead": "planner dead",
    "done": "planner done",
}
"""Kind of an event -> what the page calls it."""


def write_page(session: Session) -> Path:
    """Write page.html of a session, whole; returns its path."""
    out = session.wishes.out
    shown = sorted(session.tours, key=lambda tour: all(body.success is not False for body in tour.bodies))[:TOURS_SHOWN]
    page = page_environment().get_template("act.html.j2").render(
        title=f"{session.wishes.task}, {session.wishes.planner} planner",
        facts=_facts(session),
        tours=[_row(tour) for tour in session.tours],
        shown=[_told(out, tour) for tour in sorted(shown, key=lambda tour: tour.folder)],
        left_out=len(session.tours) - len(shown),
    )  # fmt: skip
    path = out / PAGE
    write_atomic(path, page.encode("utf-8", errors="replace"))
    return path


def _facts(session: Session) -> dict[str, str]:
    wishes = session.wishes
    speed = wishes.runtime.speed
    facts = {
        "policy": session.system_1,
        "planner": wishes.planner,
        "pace": f"{speed:g} times real time" if speed else "as fast as possible; the world waits for the planner",
        "silent planner": f"stands still after {wishes.runtime.rhythm.hold_s:g} s",
    }
    if session.successes is not None:
        facts["tours done"] = f"{session.successes} of {len(session.tours)}"
    return facts


def _row(tour: Tour) -> dict[str, Any]:
    """One line of the table of tours."""
    rates, bodies = tour.rates, tour.bodies
    failures = {k: n for body in bodies for k, n in body.counts.items() if k not in ("asked", "answered")}
    latency = bodies[0].latency_s
    return {
        "name": tour.folder,
        "seed": tour.seed,
        "goal": " | ".join(body.goal for body in bodies),
        "end": " | ".join(body.end for body in bodies),
        "good": all(body.success is not False for body in bodies),
        "time": max(body.time_s for body in bodies),
        "asked": sum(body.counts["asked"] for body in bodies),
        "failures": ", ".join(f"{count} {kind}" for kind, count in failures.items()) or "none",
        "silences": sum(body.silences for body in bodies),
        "latency": None if latency is None else f"{latency['median']:.3f} / {latency['longest']:.3f}",
        "rate": None if rates is None else 1.0 / rates.mean_s,
        "wanted": None if rates is None or not rates.wanted_s else 1.0 / rates.wanted_s,
        "p99": None if rates is None else 1e3 * rates.p99_s,
        "late": None if rates is None or not rates.wanted_s else 100.0 * rates.late_share,
        "standing": all(body.standing for body in bodies),
    }


def _told(out: Path, tour: Tour) -> dict[str, Any]:
    """A tour's events as rows, with their pictures."""
    folder = out / tour.folder
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = sorted(_merged(events), key=lambda row: row["time_s"])
    kept = _thinned(rows, EVENTS_SHOWN)
    pictured = {id(row) for row in _thinned([row for row in kept if row.get("images")], PICTURES_SHOWN)}
    return {
        "name": tour.folder,
        "goals": [f"{body.body}: {body.goal}" for body in tour.bodies],
        "ends": [f"{body.body}: {body.end}" for body in tour.bodies],
        "rows": [_event(folder, row, id(row) in pictured) for row in kept],
        "left_out": len(rows) - len(kept),
        "events": len(events),
        "video": tour.video,
        "planners": [{**body.planner, **body.driver} for body in tour.bodies],
    }


def _merged(events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Events, the same words said again and again as one."""
    rows: list[dict[str, Any]] = []
    last: dict[str, dict[str, Any]] = {}
    for event in events:
        before = last.get(event.get("body", ""))
        same = before is not None and event["kind"] == before["kind"] == "told" and event["until"] is None
        if before is not None and same and before["instruction"] == event["instruction"] and before["until"] is None:
            before["times"] += 1
            continue
        rows.append({**event, "times": 1})
        last[event.get("body", "")] = rows[-1]
    return rows


def _thinned(rows: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """At most `most` rows: everything that is no plain answer, and answers evenly."""
    if len(rows) <= most:
        return list(rows)
    odd = [number for number, row in enumerate(rows) if row["kind"] != "told"][:most]
    plain = [number for number, row in enumerate(rows) if row["kind"] == "told"]
    room = most - len(odd)
    chosen = {plain[round(place * (len(plain) - 1) / max(1, room - 1))] for place in range(room)} if plain else set()
    return [rows[number] for number in sorted(chosen | set(odd))]


def _event(folder: Path, row: Mapping[str, Any], pictured: bool) -> dict[str, Any]:
    kind = row["kind"]
    until = row.get("until")
    held = "" if kind != "told" else "planner decides" if until is None else f"for {until:g} s"
    return {
        "time": row["time_s"],
        "kind": kind,
        "word": WORDS.get(kind, kind),
        "body": row.get("body", ""),
        "instruction": row.get("instruction", ""),
        "until": held,
        "times": row["times"],
        "note": row.get("note") or row.get("error") or row.get("why") or "",
        "latency": row.get("latency_s"),
        "images": [_data_url(folder / name) for name in row.get("images", ())] if pictured else [],
    }


def _data_url(path: Path) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode()}"
