"""A training's record as the text that a designer reads. Pure: lists and dicts in, text out.

Knows nothing of the human reward. A NaN is shown as nan and named with its component and first iteration;
nothing is averaged over it. Component names come from an LLM, so they are reduced to plain characters and a
length."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from eureka.candidate import Candidate, Status
from eureka.score import over_seeds

POINTS = 10
NAME_CAP = 60
ERROR_CAP = 160
PARSED_CAP = 50_000  # characters of a program; the gate takes no longer ones
COMPONENTS_CAP = 24  # rows; a reward with more is cut, largest names last
BEHAVIOUR_CAP = 64  # rows


def reflect(metrics: Sequence[Mapping[str, Any]], result: Mapping[str, Any], by_seed: Sequence[float] = ()) -> str:
    """What happened in a training.

    Args:
        metrics: the lines of metrics.jsonl, one per iteration; may be empty.
        result: result.json.
        by_seed: held-out fitness of all trainings of this program where there are several, this one's included.

    Returns:
        Several lines: held-out fitness with its spread, how episodes ended, for fitness, episode length and each
        component about ten evenly spaced points with maximum, mean and minimum, and how the signals were distributed
        in the held-out episodes.
    """
    unit = str(result.get("fitness_unit") or "")
    lines = [*_outcome(result, unit), *_seeds(by_seed, unit), *_endings(metrics, result)]
    rows = [row for row in metrics if isinstance(row.get("iteration"), int)]
    if not rows:
        return "\n".join([*lines, "No iteration of the training was recorded."])
    picked = _evenly(rows, POINTS)
    lines += [
        "",
        "Course of the training; rewards are means per step over the episodes that ended in the iteration; "
        "- where none ended.",
    ]
    lines.append(f"iterations shown: {', '.join(str(row['iteration']) for row in picked)}")
    lines.append(_course(f"fitness ({unit})" if unit else "fitness", rows, picked, lambda row: row.get("fitness")))
    lines.append(_course("episode length (s)", rows, picked, lambda row: row.get("episode_length_s")))
    lines.append(_course("total reward per step", rows, picked, lambda row: row.get("reward_mean")))
    names = list(dict.fromkeys(name for row in rows for name in _components(row) if name != "total"))
    lines += [_course(clean_name(name), rows, picked, _mean_of(name)) for name in names[:COMPONENTS_CAP]]
    if len(names) > COMPONENTS_CAP:
        lines.append(f"... and {len(names) - COMPONENTS_CAP} more components")
    return "\n".join([*lines, *_nonfinite(rows, names), *_behaviour(_mapping(result.get("eval")))])


def _outcome(result: Mapping[str, Any], unit: str) -> list[str]:
    """Held-out fitness, or why there is none."""
    status = str(result.get("status") or "unknown")
    if status != "ok":
        error = result.get("error")
        words = f"{error.get('type')}: {error.get('message')}" if isinstance(error, Mapping) else str(error or "")
        line = error.get("line") if isinstance(error, Mapping) else None
        where = f" (line {line} of the program)" if isinstance(line, int) else ""
        return [
            f"The training failed: {status}{where}. {_plain(words, 4 * ERROR_CAP)}".rstrip(),
            "It has no fitness.",
        ]
    evaluation = _mapping(result.get("eval"))
    spread = result.get("fitness_std")
    text = f"Held-out fitness: {figure(result.get('fitness'))} {unit}".rstrip()
    if spread is not None:
        text += f", spread between episodes {figure(spread)}"
    if evaluation.get("episodes"):
        text += f" ({evaluation['episodes']} episodes, deterministic policy"
        length = evaluation.get("episode_length_s")
        text += f", mean length {figure(length)} s)" if length is not None else ")"
    return [text]


def _seeds(by_seed: Sequence[float], unit: str) -> list[str]:
    """What the same program reached by other seeds: how far a difference between two programs may be luck."""
    if len(by_seed) < 2:
        return []
    score = over_seeds(by_seed)
    assert score is not None
    shown = ", ".join(figure(value) for value in by_seed)
    text = f"Trained {len(by_seed)} times with other random seeds: {shown}; mean {figure(score.mean)} {unit}".rstrip()
    return [f"{text}, standard deviation {figure(score.std)}. What follows is the first of these trainings."]


def _endings(metrics: Sequence[Mapping[str, Any]], result: Mapping[str, Any]) -> list[str]:
    """Why episodes ended, in the evaluation and over the last tenth of the training; divergences."""
    lines: list[str] = []
    evaluation = _mapping(result.get("eval"))
    if evaluation:
        lines.append(f"Held-out episodes ended by: {_reasons([evaluation])}")
    recent = list(metrics[-max(1, len(metrics) // 10) :])
    if recent:
        lines.append(f"Training episodes of the last {len(recent)} iterations ended by: {_reasons(recent)}")
    diverged = sum(_count(row.get("diverged")) for row in metrics)
    held_out = _count(evaluation.get("diverged"))
    if diverged or held_out:
        lines.append(f"The simulation diverged and was reset: {diverged} times in training, {held_out} held out.")
    return lines


def _reasons(rows: Sequence[Mapping[str, Any]]) -> str:
    counts: dict[str, int] = {}
    for row in rows:
        for reason, count in _mapping(row.get("terminations")).items():
            counts[clean_name(str(reason))] = counts.get(clean_name(str(reason)), 0) + _count(count)
    counts["time limit"] = sum(_count(row.get("truncations")) for row in rows)
    parts = [f"{reason} {count}" for reason, count in sorted(counts.items(), key=lambda kv: -kv[1]) if count]
    return ", ".join(parts) or "none ended"


def _course(name: str, rows: Sequence[Mapping[str, Any]], picked: Sequence[Mapping[str, Any]], get: Any) -> str:
    """One row: the picked points, then maximum, mean and minimum over every iteration that has a value."""
    values = [number for row in rows if (number := to_float(get(row))) is not None]
    # A place without a value is kept, or the rows would not stand below one another.
    points = ["-" if (number := to_float(get(row))) is None else figure(number) for row in picked]
    if not values:
        return f"{name}: no episode ended"
    whole = [math.nan] if any(math.isnan(v) for v in values) else values
    shown = ", ".join(points)
    mean = sum(whole) / len(whole)
    return f"{name}: [{shown}]  max {figure(max(whole))}  mean {figure(mean)}  min {figure(min(whole))}"


def _nonfinite(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """Components that were not finite: how often, and since when."""
    lines: list[str] = []
    for name in [*names, "total"]:
        bad = [(row["iteration"], _bad(_components(row).get(name))) for row in rows]
        bad = [(iteration, count) for iteration, count in bad if count]
        if bad:
            lines.append(
                f"NOT FINITE: {clean_name(name)} was nan or infinite in {sum(c for _, c in bad)} episodes, "
                f"first in iteration {bad[0][0]}."
            )
    return lines


def _behaviour(evaluation: Mapping[str, Any]) -> list[str]:
    """How the signals were distributed over the held-out episodes, a row for each column; wide signals in one row."""
    rows: list[str] = []
    for name, columns in _mapping(evaluation.get("behaviour")).items():
        for number, quantiles in enumerate(columns):
            place = f"[{number}]" if len(columns) > 1 else ""
            rows.append(f"{clean_name(str(name))}{place}: {', '.join(figure(value) for value in quantiles)}")
    if not rows:
        return []
    left_out = len(rows) - BEHAVIOUR_CAP
    return [
        "",
        "What the trained policy does: 5, 25, 50, 75 and 95 % quantiles of the signals over the steps of the held-out "
        "episodes; a signal of more than 4 columns has one row for all of them.",
        *rows[:BEHAVIOUR_CAP],
        *([f"... and {left_out} more rows"] if left_out > 0 else []),
    ]


def _bad(component: Any) -> int:
    """Episodes in which a component was not finite; at least 1 where its mean is not."""
    if not isinstance(component, Mapping):
        return 0
    mean = to_float(component.get("mean"))
    return max(_count(component.get("nonfinite")), int(mean is not None and not math.isfinite(mean)))


def _components(row: Mapping[str, Any]) -> Mapping[str, Any]:
    return _mapping(row.get("components"))


def _mean_of(name: str) -> Any:
    return lambda row: _mapping(_components(row).get(name)).get("mean")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _evenly(rows: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """At most `count` rows, evenly spaced, the first and the last among them."""
    if len(rows) <= count:
        return list(rows)
    return [rows[round(i * (len(rows) - 1) / (count - 1))] for i in range(count)]


def to_float(value: Any) -> float | None:
    """A recorded number: None for null, NaN or an infinity for its name as text (JSON has neither)."""
    if value is None or isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def figure(value: Any) -> str:
    """A number in three significant digits; nan as nan, none as "none"."""
    number = to_float(value)
    if number is None:
        return "none"
    return f"{number:.0f}" if math.isfinite(number) and 1000 <= abs(number) < 1e7 else f"{number:.3g}"


def clean_name(name: str) -> str:
    """A component's or reason's name in plain characters, so that it cannot say anything else."""
    plain = re.sub(r"[^0-9A-Za-z_ .-]+", "_", name)
    return plain if len(plain) <= NAME_CAP else plain[: NAME_CAP - 3] + "..."


def _plain(text: str, limit: int) -> str:
    """`text` on one line, without backticks, cut."""
    line = " ".join(text.replace("`", "'").split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def summarise(candidate: Candidate) -> str:
    """One line on an earlier attempt: its id, fitness or why it failed, and its components."""
    names = component_names(candidate.source)
    listed = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    terms = f"; components {listed}" if names else ""
    if candidate.scored:
        # Of one training there is only the spread between episodes, which says nothing about the program.
        told = candidate.seeds > 1 and candidate.fitness_std is not None
        spread = f" +- {figure(candidate.fitness_std)} over {candidate.seeds} trainings" if told else ""
        return f"{candidate.candidate_id}: fitness {figure(candidate.fitness)}{spread}{terms}"
    what = {
        Status.REFUSED: f"refused at {candidate.stage or 'the gate'}",
        Status.NO_REPLY: "no usable reply",
        Status.FAILED: "training failed",
        Status.ELIMINATED: "not ranked",
    }.get(candidate.status, str(candidate.status))
    reason = _plain(candidate.error or "", ERROR_CAP)
    return f"{candidate.candidate_id}: {what}" + (f" ({reason})" if reason else "") + terms


def component_names(source: str | None) -> list[str]:
    """Names in the components dict that a program's entry point returns, as far as its text shows them."""
    if not source or len(source) > PARSED_CAP:
        return []
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []  # a refused program need not be Python
    found: list[str] = []
    for function in tree.body:
        if isinstance(function, ast.FunctionDef) and function.name == "compute_reward":
            dicts = [node for node in ast.walk(function) if isinstance(node, ast.Dict)]
            keys = [key.value for node in dicts for key in node.keys if isinstance(key, ast.Constant)]
            found += [clean_name(key) for key in keys if isinstance(key, str)]
    return list(dict.fromkeys(found))
