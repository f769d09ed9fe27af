"""One self-contained HTML page of a generalist: what it keeps of its experts, told and did, price of chunks, losses.

Everything comes from the files of its folder: head.json, evaluation.json, metrics.jsonl and play.mp4, of which all but
the first may be missing. Every figure on the page is in these files.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.evaluate import EXPERT, HELD_OUT, IDLE, STUDENT
from distill.generalist import load_generalist
from distill.told import FELL
from eureka.bench_page import Table
from eureka.report import page_environment
from eureka.report_curves import Curve, plain_curve
from eureka.report_text import DASH, format_count, format_number
from eureka.report_view import EMBED_LIMIT_BYTES
from rl.record import METRICS, read_json, read_metrics, write_atomic

EVALUATION, VIDEO, PAGE = "evaluation.json", "play.mp4", "report.html"
WORST = 12
"""Phrases that are listed, those least obeyed."""

NOTES = (
    "Kept: (student - nothing) / |expert - nothing|, where nothing is a policy of zero actions: 1 is the expert's "
    "fitness, 0 that of doing nothing. All act in the same worlds, whose seed nothing was trained on.",
    "Intervals are 95 % bootstrap intervals over episodes.",
    "Obeyed: share of stretches of one command in which what was done comes nearest to what was told. Held-out words "
    "were never trained on.",
)


@dataclass(frozen=True)
class Matrix:
    """Told to do X, did Y."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, float, bool], ...]], ...]
    """Name of a command, and of each cell its text, its share of the row and whether it is the one that was told."""


def write_page(folder: Path) -> Path:
    """Write report.html into a generalist's folder and return its path. Raises UserError where it is none, or a file of
    it is damaged."""
    folder = Path(folder)
    generalist = load_generalist(folder)
    found = read_json(folder / EVALUATION) if (folder / EVALUATION).exists() else {}
    skills = found.get("skills", [])
    head = generalist.head
    facts = {
        "tasks": str(len(generalist.skills)),
        "bodies": ", ".join(head.table.names),
        "parameters": format_count(sum(parameter.numel() for parameter in head.parameters())),
        "head": f"{head.config.layers} x {head.config.width}, {head.config.objective}, chunks of {head.config.horizon}",
    }
    if skills:
        facts |= {"episodes": f"{found['episodes']} a task", "seed": str(skills[0]["seed"])}
    page = page_environment().get_template("generalist.html.j2").render(
        name=folder.resolve().name,
        facts=facts,
        video=_video(folder / VIDEO),
        skills=skill_table(skills) if skills else None,
        matrices=[matrix for skill in skills for matrix in matrices(skill)],
        phrases=worst_phrases(skills),
        prices=price_tables(found.get("prices", []), skills),
        curves=loss_curves(read_metrics(folder / METRICS)),
        notes=NOTES,
    )  # fmt: skip
    path = folder / PAGE
    write_atomic(path, page.encode("utf-8", errors="replace"))
    return path


def skill_table(skills: Sequence[Mapping[str, Any]]) -> Table:
    """One row a task; what was obeyed only where there is something to obey."""
    told = any(HELD_OUT in skill["runs"] for skill in skills)
    head = ("task", "body", "carried out", "nothing", "expert", "student", "unit", "kept")
    more = ("kept, held-out words", "obeyed", "obeyed, held-out words") if told else ()
    rows = tuple(skill_row(skill)[: len(head) + len(more)] for skill in skills)
    return Table("What it keeps of its experts", (*head, *more), rows)


def price_tables(prices: Sequence[Mapping[str, Any]], skills: Sequence[Mapping[str, Any]]) -> list[Table]:
    """What is kept, or the fitness where there is no expert, one row a task: by actions carried out, and by Euler
    steps; each with the other as it is set."""
    made = []
    for title, this, other in (
        ("Actions of a chunk carried out", "execute", "steps"),
        ("Euler steps", "steps", "execute"),
    ):
        values = sorted({price[this] for price in prices})
        rows = []
        for skill in skills:
            own = {p[this]: p for p in prices if p["task"] == skill["task"] and p[other] == skill[other]}
            if own:
                told = (_price(own[value], skill["unit"]) if value in own else DASH for value in values)
                rows.append((skill["task"], str(skill[this]), *told))
        if rows:
            made.append(Table(title, ("task", "as it is set", *map(str, values)), tuple(rows)))
    return made


def skill_row(skill: Mapping[str, Any]) -> tuple[str, ...]:
    """Texts of one row: task, body, actions carried out; fitness of nothing, expert and student, its unit; what was
    kept and obeyed, each also with held-out words."""
    runs = skill["runs"]
    return (
        skill["task"],
        skill["embodiment"],
        str(skill["execute"]),
        *(format_number(runs[who]["fitness"]["value"]) if who in runs else DASH for who in (IDLE, EXPERT, STUDENT)),
        skill["unit"],
        interval(skill["kept"]),
        interval(skill["kept_held_out"]),
        *(_share(runs.get(who)) for who in (STUDENT, HELD_OUT)),
    )


def matrices(skill: Mapping[str, Any]) -> list[Matrix]:
    """Of a skill with commands: the student's, on words of the training and on held-out ones."""
    made = []
    for who, words in ((STUDENT, "words of the training"), (HELD_OUT, "held-out words")):
        obeyed = skill["runs"].get(who, {}).get("obeyed")
        if not obeyed:
            continue
        rows = []
        for place, (name, counts) in enumerate(zip(obeyed["commands"], obeyed["matrix"], strict=True)):
            of_all = sum(counts)
            cells = tuple(
                (str(count) if count else "", count / of_all if of_all else 0.0, column == place)
                for column, count in enumerate(counts)
            )
            rows.append((name, cells))
        made.append(Matrix(f"{skill['task']}, {words}", (*obeyed["commands"], FELL), tuple(rows)))
    return made


def worst_phrases(skills: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Phrases that were not always obeyed, the worst first: task, phrase, how often of how many."""
    told = []
    for skill in skills:
        for who in (STUDENT, HELD_OUT):
            obeyed = skill["runs"].get(who, {}).get("obeyed") or {"phrases": {}}
            for phrase, (right, of_all) in obeyed["phrases"].items():
                if right < of_all:
                    told.append((right / of_all, skill["task"], phrase, f"{right} of {of_all}"))
    return [(task, phrase, text) for _, task, phrase, text in sorted(told)[:WORST]]


def loss_curves(metrics: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """The loss, and each body's own."""
    names = dict.fromkeys(name for record in metrics for name in record if name.startswith("loss/"))
    curves = [plain_curve(metrics, "loss", "loss, mean of the bodies", "total")]
    curves += [plain_curve(metrics, name, name.removeprefix("loss/"), "component") for name in names]
    return [curve for curve in curves if curve.points]


def interval(told: Mapping[str, float] | None) -> str:
    """A figure with its interval; a dash for None."""
    if told is None:
        return DASH
    value, low, high = (format_number(told[name]) for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _price(price: Mapping[str, Any], unit: str) -> str:
    return interval(price["kept"]) if price["kept"] else f"{format_number(price['fitness']['value'])} {unit}"


def _share(run: Mapping[str, Any] | None) -> str:
    obeyed = (run or {}).get("obeyed")
    if not obeyed:
        return DASH
    right, of_all = sum(row[place] for place, row in enumerate(obeyed["matrix"])), sum(map(sum, obeyed["matrix"]))
    return f"{format_number(right / of_all)} of {of_all}" if of_all else DASH


def _video(path: Path) -> str | None:
    """The video inside the page, where it is not too large."""
    if not path.is_file() or path.stat().st_size > EMBED_LIMIT_BYTES:
        return None
    return "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
