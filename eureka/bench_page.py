"""A scoreboard as JSON, Markdown and one self-contained HTML page: rows in, texts out.

Every figure on the pages is in the JSON, and the JSON is made of the rows alone. Scores are human-normalised, as in the
Eureka paper (arXiv:2310.12931): (M - sparse) / |human - sparse|, per seed, from equal budgets.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eureka.bench import Row
from eureka.bench_statistics import (
    Estimate,
    estimate,
    interquartile_mean,
    mean_estimate,
    probability_of_improvement,
)
from eureka.report_text import DASH, format_count, format_number, format_seconds
from eureka.score import human_normalised
from rl.record import write_atomic, write_json_atomic

SCHEMA = 1


def write_pages(rows: Sequence[Row], facts: Mapping[str, Any], out: Path, name: str) -> Path:
    """Write NAME.json, NAME.md and NAME.html into `out`, which is made; returns the path of the last.

    Args:
        rows: The scoreboard.
        facts: Of the machine and the budget, name -> value, for people.
        out: The folder.
        name: Of the files, without their endings.
    """
    from eureka.report import page_environment

    told = summary(rows, facts)
    out.mkdir(parents=True, exist_ok=True)
    write_json_atomic(out / f"{name}.json", told)
    write_atomic(out / f"{name}.md", as_markdown(told).encode())
    page = (
        page_environment()
        .get_template("bench.html.j2")
        .render(facts=facts, tables=tables(told), notes=NOTES, missing=_missing(told))
    )
    path = out / f"{name}.html"
    write_atomic(path, page.encode())
    return path


def summary(rows: Sequence[Row], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that is known of a scoreboard, as plain data."""
    scores = {(row.task, row.method): _scores(row, rows) for row in rows}
    methods = list(dict.fromkeys(row.method for row in rows))
    return {
        "schema": SCHEMA,
        "facts": dict(facts),
        "rows": [
            {
                **dataclasses.asdict(row),
                "mean": _plain(mean_estimate(row.fitness)) if row.fitness else None,
                "normalised": scores[row.task, row.method],
            }
            for row in rows
        ],
        "methods": {method: _method(method, rows, scores) for method in methods},
    }


def _scores(row: Row, rows: Sequence[Row]) -> list[float] | None:
    """Human-normalised score of each seed; None without figures or without a scale."""
    of_task = {other.method: other.fitness for other in rows if other.task == row.task}
    human, sparse = of_task.get("human", ()), of_task.get("sparse", ())
    each = [human_normalised([value], human, sparse) for value in row.fitness]
    return [score.mean for score in each if score is not None] if each and None not in each else None


def _method(method: str, rows: Sequence[Row], scores: Mapping[tuple[str, str], list[float] | None]) -> dict[str, Any]:
    own = [row for row in rows if row.method == method]
    scored = [found for row in own if (found := scores[row.task, row.method])]
    human = {row.task: row.fitness for row in rows if row.method == "human" and row.fitness}
    both = [row for row in own if row.fitness and row.task in human]
    better = [statistics.fmean(row.fitness) > statistics.fmean(human[row.task]) for row in both]
    mine, other = [row.fitness for row in both], [human[row.task] for row in both]
    return {
        "tasks": len(own),
        "tasks_run": sum(bool(row.fitness) for row in own),
        "interquartile_mean": _plain(estimate(interquartile_mean, scored)) if scored else None,
        "improvement_over_human": _plain(estimate(probability_of_improvement, mine, other)) if both else None,
        "better_than_human": {"tasks": sum(better), "of": len(better)},
        "env_steps": sum(row.env_steps for row in own),
        "wall_s": sum(row.wall_s for row in own),
    }


def _plain(told: Estimate) -> dict[str, float]:
    return dataclasses.asdict(told)


# -- tables of texts, the same for both pages

NOTES = (
    "Fitness: mean over fresh seeds on held-out episodes, with its 95 % bootstrap interval. Every training of a task "
    "has the same budget.",
    "Score: (method - sparse) / |human - sparse|; 0 is the sparse reward, 1 the human one.",
    "Interquartile mean over tasks and seeds, and probability of improvement over the human reward, with 95 % "
    "stratified bootstrap intervals (Agarwal et al., arXiv:2108.13264).",
    "Steps and seconds are those of all trainings of a method, candidates of a search included, as if one ran after "
    "the other.",
)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of texts; the first column names the row."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(told: Mapping[str, Any]) -> list[Table]:
    """The methods over all tasks, then every method on every task."""
    methods = tuple(_method_row(name, facts) for name, facts in told["methods"].items())
    rows = tuple(_task_row(row) for row in told["rows"])
    return [
        Table(
            "Methods",
            ("method", "tasks run", "interquartile mean of scores", "probability of improvement over human",
             "better than human", "steps", "training time"),
            methods,
        ),
        Table(
            "Tasks",
            ("task", "method", "fitness", "unit", "score", "seeds", "steps a training", "steps in all",
             "training time"),
            rows,
        ),
    ]  # fmt: skip


def _method_row(name: str, facts: Mapping[str, Any]) -> tuple[str, ...]:
    better = facts["better_than_human"]
    return (
        _short(name),
        f"{facts['tasks_run']} of {facts['tasks']}",
        _interval(facts["interquartile_mean"]),
        DASH if name == "human" else _interval(facts["improvement_over_human"]),
        DASH if name == "human" or not better["of"] else f"{better['tasks']} of {better['of']}",
        format_count(facts["env_steps"]),
        format_seconds(facts["wall_s"]),
    )


def _task_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    if row["not_run"]:
        return (row["task"], _short(row["method"]), "not run", *[DASH] * 6)
    score = row["normalised"]
    failed = f", {row['failed']} failed" if row["failed"] else ""
    return (
        row["task"],
        _short(row["method"]),
        _interval(row["mean"]),
        row["unit"],
        DASH if score is None else format_number(statistics.fmean(score)),
        f"{len(row['fitness'])}{failed}",
        format_count(row["budget"]),
        format_count(row["env_steps"]),
        format_seconds(row["wall_s"]),
    )


def _missing(told: Mapping[str, Any]) -> list[str]:
    return [f"{row['task']}, {_short(row['method'])}: {row['not_run']}" for row in told["rows"] if row["not_run"]]


def _short(method: str) -> str:
    kind, colon, folder = method.partition(":")
    return f"{kind} {Path(folder).name}" if colon else method


def _interval(told: Mapping[str, float] | None) -> str:
    if told is None:
        return DASH
    value, low, high = (format_number(told[name]) for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def as_markdown(told: Mapping[str, Any]) -> str:
    """The scoreboard as Markdown."""
    lines = ["# Scoreboard", ""]
    lines += [f"- {name}: {value}" for name, value in told["facts"].items()]
    for table in tables(told):
        lines += ["", f"## {table.title}", "", _line(table.head), _line(["---"] * len(table.head))]
        lines += [_line(row) for row in table.rows]
    missing = _missing(told)
    if missing:
        lines += ["", "## Not run", "", *(f"- {line}" for line in missing)]
    return "\n".join([*lines, "", *(f"{note}\n" for note in NOTES)])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
