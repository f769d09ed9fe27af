"""One self-contained HTML page for a search: what was tried, what it gave, why it failed, and the best policy's video.

The page needs no network, no server and no script to be read; a script only sorts, filters and folds. It is a function
of the search's folder alone (no clock is read), so the same records give the same page, and it is written whole at
any moment of a search. Text from a language model is escaped by the templates, and the page's content security policy
admits no script but its own.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from eureka import report_story as story
from eureka.candidate import Candidate, Status, best
from eureka.halving import spent
from eureka.report_charts import FitnessChart, Level, fitness_chart
from eureka.report_data import SearchRecord, flatten, number, read_search
from eureka.report_text import (
    DASH,
    diff_size,
    format_count,
    format_number,
    format_seconds,
    format_spread,
    unified_diff,
)
from eureka.report_view import CandidateView, candidate_views, dots, find_video
from rl.record import write_atomic

REPORT = "report.html"
TEMPLATES = Path(__file__).parent / "report_template"
CHART_SIZES = {"wide": (960, 420), "narrow": (360, 340)}
"""Name -> width and height in pixels; the style sheet shows the one that fits the window."""
SETTING_SHOWN = 200  # characters; a setting may be a whole program


def write_report(folder: Path) -> Path:
    """Writes report.html of a search, whole or not at all; a search that goes on may be reported at any moment.

    Args:
        folder: runs/<task>/<search-id>.

    Returns:
        The page's path.

    Raises:
        UserError: the folder holds no search, or its records cannot be read.
    """
    folder = Path(folder)
    path = folder / REPORT
    write_atomic(path, render(read_search(folder)).encode("utf-8", errors="replace"))
    return path


@functools.cache
def page_environment() -> Environment:
    """The templates of our pages; a search renders its one after every training, and compiling is most of the work."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        num=format_number, count=format_count, duration=format_seconds, moment=format_moment, dash=_dash
    )
    environment.globals.update(spread=format_spread)
    return environment


def render(record: SearchRecord) -> str:
    """The page of a search as HTML text."""
    environment = page_environment()
    script = environment.get_template("script.js.j2").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return environment.get_template("page.html.j2").render(
        page_values(record), script=Markup(script), script_hash=f"sha256-{digest}"
    )


def page_values(record: SearchRecord) -> dict[str, Any]:
    """Everything the page's template fills in, by name."""
    top = best(record.candidates)
    unit = fitness_unit(record)
    views = candidate_views(record, unit)
    roles = story.role_results(record)
    path = story.lineage(record.candidates, top) if top else []
    return {
        "task": task_name(record),
        "search_id": record.folder.resolve().name,
        "instruction": record.setting("instruction"),
        "state": story.state_of(record),
        "updated_s": record.updated_s,
        "unit": unit,
        "facts": header_facts(record),
        "views": views,
        "whole": record.whole,
        "total": record.counts.candidates,
        "begun": len(record.counts.generations),
        "whole_from": record.choice.whole_from,
        "best": top,
        "best_view": next((view for view in views if top and view.id == top.candidate_id), None),
        "lineage": lineage_steps(path, views),
        "roles": roles,
        "score": story.normalised_score(roles),
        "comparison": story.comparison(roles),
        "charts": _charts(record, top, views, roles, unit),
        "stories": story.generation_stories(record, unit),
        "failures": story.failure_groups(record),
        "spending": story.spending(record),
        "statuses": status_counts(views),
        "video": find_video(record, top, unit),
        "settings": [(name, _setting_text(value)) for name, value in flatten(record.config)],
        "events": record.events,
    }


def task_name(record: SearchRecord) -> str:
    """The task as a person knows it: its name, or the name of its file."""
    told = str(record.setting("task_name", "task", default=record.folder.resolve().parent.name))
    return Path(told).name if "/" in told else told


def fitness_unit(record: SearchRecord) -> str:
    """The unit of the task's fitness: as configured, else as a result tells it, else ""."""
    told = record.setting("fitness_unit")
    results = [candidate.result or {} for candidate in record.candidates] + [run.result for run in record.runs]
    return str(told or next((r["fitness_unit"] for r in results if r.get("fitness_unit")), ""))


def header_facts(record: SearchRecord) -> list[tuple[str, str]]:
    """(name, value) pairs of the page's head: who designed, with which seed, within which budget."""
    models = sorted({str(reply["model"]) for reply in record.counts.replies if reply["model"]})
    samples, generations = record.setting("samples", "k"), record.setting("generations", "n")
    repairs = record.setting("repairs", "max_repairs")
    facts = [
        ("designer", record.setting("designer_name", "designer")),
        ("model", ", ".join(models) or record.setting("model")),
        ("seed", record.setting("seed")),
    ]
    if samples is not None and generations is not None:
        words = f"{generations} generations × {samples} candidates"
        facts.append(("search", words + (f", up to {repairs} repairs each" if repairs is not None else "")))
    worlds, steps, iterations = (number(record.setting(k)) for k in ("num_envs", "steps_per_env", "iterations"))
    if worlds and iterations:
        total = f" = {format_count(worlds * steps * iterations)} steps" if steps else ""
        steps_text = f" × {format_count(steps)} steps" if steps else ""
        facts.append(
            (
                "training",
                f"{format_count(worlds)} worlds{steps_text} × {format_count(iterations)} iterations{total}",
            )
        )
    rungs = record.runs_of_role("rung")
    if rungs:
        stopped = sum(generation.statuses.get(Status.ELIMINATED.value, 0) for generation in record.counts.generations)
        words = f"{format_count(stopped)} candidates stopped early"
        if record.whole:  # else not all results are read
            own = [*rungs, *record.runs_of_role("candidate")]
            told = [(r.candidate_id or "", r.seed or 0, int(number(r.result.get("env_steps")) or 0)) for r in own]
            words += f"; {format_count(spent(told))} steps in all"
        facts.append(("halving", words))
    limit, tokens = number(record.setting("time_limit_s")), number(record.setting("max_tokens_total"))
    if limit:
        facts.append(("time limit", f"{format_seconds(limit)} per training"))
    if tokens:
        facts.append(("token budget", format_count(tokens)))
    return [(name, str(value)) for name, value in facts if value not in (None, "")]


def lineage_steps(path: list[Candidate], views: list[CandidateView]) -> list[dict[str, Any]]:
    """The best reward's ancestors, oldest first: id, fitness, and how many lines each changed."""
    by_id = {view.id: view for view in views}
    steps = []
    for before, candidate in zip([None, *path], path, strict=False):
        added, removed = 0, 0
        if before is not None and before.source and candidate.source:
            added, removed = diff_size(unified_diff(before.source, candidate.source, "", ""))
        steps.append(
            {
                "view": by_id[candidate.candidate_id],
                "first": before is None,
                "cut": before is None and candidate.parent_id is not None,
                "added": added,
                "removed": removed,
            }
        )
    return steps


def status_counts(views: list[CandidateView]) -> list[tuple[str, int]]:
    """(status, how many) of all statuses that occur, the most frequent first."""
    counts: dict[str, int] = {}
    for view in views:
        counts[view.status] = counts.get(view.status, 0) + 1
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _charts(
    record: SearchRecord,
    top: Candidate | None,
    views: list[CandidateView],
    roles: dict[str, story.RoleResult],
    unit: str,
) -> list[tuple[str, Markup]]:
    planned = number(record.setting("generations", "n")) or 0
    numbers = [generation.number for generation in record.counts.generations]
    begun, first = max(numbers, default=0), min([1, *numbers])
    levels = [
        Level(role, result.label, result.mean, result.spread)
        for role, result in roles.items()
        if role != "final" and result.mean is not None
    ]
    finals = [
        (run.fitness, f"best reward, fresh seed {run.seed}: {format_number(run.fitness)} {unit}".strip())
        for run in roles["final"].runs
        if run.fitness is not None
    ]
    chart = FitnessChart(
        dots=dots(views, top.candidate_id if top else None),
        candidates=record.counts.candidates,
        best=story.best_lines(record.counts.generations),
        levels=levels,
        finals=finals,
        generations=max(int(planned), begun, 1) + (1 - first),
        first=first,
        unit=unit,
        lineage=[candidate.candidate_id for candidate in story.lineage(record.candidates, top)] if top else [],
    )
    drawn = [(name, fitness_chart(chart, *size)) for name, size in CHART_SIZES.items()]
    return [(name, drawing) for name, drawing in drawn if drawing]


def format_moment(seconds: float | None) -> str:
    """Unix time as "2025-11-21 14:03 UTC"."""
    if seconds is None:
        return DASH
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M UTC")


def _dash(value: Any) -> Any:
    return DASH if value in (None, "") else value


def _setting_text(value: Any) -> str:
    text = DASH if value is None else str(value)
    return text if len(text) <= SETTING_SHOWN else f"{text[:SETTING_SHOWN]}..."
