"""Small training curves as inline SVG: mean, and a band from minimum to maximum where there is one.

A NaN is a gap in the line and a red mark on the axis, never a number. Iterations in which no episode ended (None) are
left out of the line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from eureka.report_charts import MAX_POINTS
from eureka.report_data import number
from eureka.report_text import format_number

WIDTH, HEIGHT = 240, 118
LEFT, RIGHT, TOP, BOTTOM = 44.0, 232.0, 8.0, 92.0


@dataclass(frozen=True)
class Curve:
    """One quantity over a training; `points` are (iteration, mean, minimum, maximum), NaN kept as NaN.

    `last` is the mean at the end; `nonfinite` counts the worlds' values that were NaN or infinite.
    """

    name: str
    kind: str
    points: tuple[tuple[int, float, float, float], ...]
    last: float | None
    nonfinite: int
    drawing: Markup


def training_curves(metrics: Sequence[Mapping[str, Any]], unit: str) -> list[Curve]:
    """Fitness, episode length, total reward, then every reward component in the order of its first appearance."""
    if not metrics:
        return []
    curves = [
        plain_curve(metrics, "fitness", f"fitness, {unit}" if unit else "fitness", "fitness"),
        plain_curve(metrics, "episode_length_s", "episode length, s", "length"),
    ]
    names: dict[str, None] = {}
    for record in metrics:
        names.update(dict.fromkeys(record.get("components") or {}))
    if "total" not in names:
        curves.append(plain_curve(metrics, "reward_mean", "total reward per step", "total"))
    ordered = sorted(names, key=lambda name: name != "total")
    curves += [_component(metrics, name) for name in ordered]
    return [curve for curve in curves if curve.points]


def component_names(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the reward's components, the total left out."""
    last = metrics[-1].get("components") or {} if metrics else {}
    return [name for name in last if name != "total"]


def plain_curve(metrics: Sequence[Mapping[str, Any]], key: str, title: str, kind: str) -> Curve:
    """A quantity that has one number an iteration: `key` of the records, under a title."""
    points = []
    for record in metrics:
        value = number(record.get(key))
        if value is not None:
            points.append((int(record["iteration"]), value, value, value))
    return _curve(title, kind, points, 0)


def _component(metrics: Sequence[Mapping[str, Any]], name: str) -> Curve:
    points, nonfinite = [], 0
    for record in metrics:
        stats = (record.get("components") or {}).get(name) or {}
        mean = number(stats.get("mean"))
        nonfinite += int(number(stats.get("nonfinite")) or 0)
        if mean is not None:
            low, high = number(stats.get("min")), number(stats.get("max"))
            points.append(
                (int(record["iteration"]), mean, mean if low is None else low, mean if high is None else high)
            )
    kind = "total" if name == "total" else "component"
    return _curve("total reward per step" if name == "total" else name, kind, points, nonfinite)


def _curve(name: str, kind: str, points: list[tuple[int, float, float, float]], nonfinite: int) -> Curve:
    last = points[-1][1] if points else None
    bad = sum(not math.isfinite(point[1]) for point in points)
    kept = tuple(thin(points))
    drawing = _draw(name, kind, kept, last, bad) if points else Markup("")
    return Curve(name, kind, kept, last, max(nonfinite, bad), drawing)


def thin(points: list[tuple[int, float, float, float]]) -> list[tuple[int, float, float, float]]:
    """At most about MAX_POINTS of them, first, last and every non-finite one kept."""
    stride = math.ceil(len(points) / MAX_POINTS)
    if stride <= 1:
        return points
    last = len(points) - 1
    return [p for i, p in enumerate(points) if i % stride == 0 or i == last or not math.isfinite(p[1])]


def _draw(
    name: str, kind: str, points: Sequence[tuple[int, float, float, float]], last: float | None, bad: int
) -> Markup:
    finite = [value for point in points for value in point[1:] if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    pad = 0.06 * (high - low) or 0.5 * max(abs(high), 1e-3)
    first, end = points[0][0], max(points[-1][0], points[0][0] + 1)

    def x(iteration: int) -> float:
        return round(LEFT + (iteration - first) / (end - first) * (RIGHT - LEFT), 1)

    def y(value: float) -> float:
        return round(BOTTOM - (value - low + pad) / (high - low + 2 * pad) * (BOTTOM - TOP), 1)

    label = f"{name} over training: from {format_number(points[0][1])} to {format_number(last)}"
    label += f"; not a finite number in {bad} iterations" if bad else ""
    head = '<svg class="curve {}" viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title>'
    parts = [Markup(head).format(kind, WIDTH, HEIGHT, label, label)]
    for value in (low, high) if high > low else (low,):
        line = '<line class="rule" x1="{}" x2="{}" y1="{}" y2="{}"/>'
        line += '<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>'
        parts.append(
            Markup(line).format(LEFT, RIGHT, y(value), y(value), LEFT - 5, y(value) + 3.5, format_number(value, 3))
        )
    for stretch in _stretches(points):
        parts += _stretch(stretch, x, y)
    for point in points:
        if not math.isfinite(point[1]):
            parts.append(
                Markup('<line class="nan" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(
                    x(point[0]), BOTTOM - 6, BOTTOM + 3
                )
            )
    for iteration, anchor in ((points[0][0], "start"), (points[-1][0], "end"))[: 2 if len(points) > 1 else 1]:
        text = '<text class="tick" x="{}" y="{}" text-anchor="{}">{}</text>'
        parts.append(Markup(text).format(x(iteration), BOTTOM + 17, anchor, iteration))
    parts.append(
        Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">iteration</text></svg>').format(
            (LEFT + RIGHT) / 2, BOTTOM + 17
        )
    )
    return Markup("").join(parts)


def _stretches(
    points: Sequence[tuple[int, float, float, float]],
) -> list[list[tuple[int, float, float, float]]]:
    """The runs of finite points between the gaps."""
    stretches: list[list[tuple[int, float, float, float]]] = [[]]
    for point in points:
        if all(map(math.isfinite, point[1:])):
            stretches[-1].append(point)
        elif stretches[-1]:
            stretches.append([])
    return [stretch for stretch in stretches if stretch]


def _stretch(stretch: list[tuple[int, float, float, float]], x, y) -> list[Markup]:
    if len(stretch) == 1:
        return [Markup('<circle class="mean-dot" cx="{}" cy="{}" r="2"/>').format(x(stretch[0][0]), y(stretch[0][1]))]
    parts = []
    if any(low != high for _, _, low, high in stretch):
        upper = [f"{x(i)},{y(high)}" for i, _, _, high in stretch]
        lower = [f"{x(i)},{y(low)}" for i, _, low, _ in reversed(stretch)]
        parts.append(Markup('<polygon class="range" points="{}"/>').format(" ".join(upper + lower)))
    parts.append(
        Markup('<polyline class="mean" points="{}"/>').format(" ".join(f"{x(i)},{y(m)}" for i, m, _, _ in stretch))
    )
    return parts
