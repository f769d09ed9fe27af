"""The report's charts, drawn by hand as inline SVG: no plotting library, colours from the page's style sheet.

Every drawing carries its numbers as text: an aria-label for the whole, a <title> per mark. Colours are CSS classes, so
the light and the dark theme share one drawing; marks also differ in shape or dash, not in colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

from eureka.report_text import decimals, format_number, format_spread

MAX_POINTS = 120
"""Points of a training curve; more would be closer than a pixel."""


@dataclass(frozen=True)
class Dot:
    """A candidate in the chart of fitness over generations; `fitness` None for one without a score.

    `kind` is "best", "pending" (nothing is known yet) or "".
    """

    candidate_id: str
    generation: int
    fitness: float | None
    tip: str
    kind: str = ""


@dataclass(frozen=True)
class Level:
    """A horizontal line: mean and spread (None: no band) of a baseline."""

    name: str
    label: str
    mean: float
    spread: float | None


@dataclass(frozen=True)
class FitnessChart:
    """All that the chart of fitness over generations shows.

    Attributes:
        dots: the candidates that are shown.
        candidates: how many there are.
        best: generation -> best fitness so far.
        levels: human and sparse.
        finals: (fitness, tip) of the final runs.
        generations: how many generations the axis has room for, the first included.
        unit: the fitness's unit.
        lineage: ids of the best reward's line, oldest first.
    """

    dots: Sequence[Dot]
    candidates: int
    best: dict[int, float]
    levels: Sequence[Level]
    finals: Sequence[tuple[float, str]]
    generations: int
    unit: str
    lineage: Sequence[str] = field(default_factory=tuple)
    first: int = 1
    """The generation of the first column: 0 where a person gave a reward to start from."""


@dataclass(frozen=True)
class Frame:
    """A plot's rectangle in pixels and the values at its lower and upper edge."""

    left: float
    top: float
    right: float
    bottom: float
    low: float
    high: float

    def y(self, value: float) -> float:
        """Pixel of a value; values beyond the axis stay on its edge."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.bottom - share * (self.bottom - self.top)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values (1, 2, 5 times a power of ten) between low and high, about `count` of them."""
    rough = (high - low) / max(count, 1)
    if not math.isfinite(rough) or rough <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def fitness_limits(dots: Iterable[float], others: Iterable[float]) -> tuple[float, float]:
    """The axis of the fitness chart: everything but a far tail of bad candidates, which would flatten the rest."""
    scores, fixed = sorted(dots), list(others)
    everything = scores + fixed
    low, high = min(everything), max(everything)
    if len(scores) >= 4:
        spread = high - scores[len(scores) // 2]
        if spread > 0 and high - low > 5 * spread:
            low = min([high - 3 * spread, *fixed])
    pad = 0.07 * (high - low) or 0.5 * max(abs(high), 1e-3)
    return low - pad, high + pad


def fitness_chart(chart: FitnessChart, width: int, height: int) -> Markup:
    """The chart at one size; the empty text where nothing has a score yet."""
    scored = [dot for dot in chart.dots if dot.fitness is not None and math.isfinite(dot.fitness)]
    fixed = [level.mean + sign * (level.spread or 0.0) for level in chart.levels for sign in (-1, 1)]
    fixed = [value for value in [*fixed, *(value for value, _ in chart.finals)] if math.isfinite(value)]
    scores = [dot.fitness for dot in scored if dot.fitness is not None]
    if not scores and not fixed:
        return Markup("")
    narrow = width < 600
    frame = Frame(46, 26, width - (82 if narrow else 128), height - 64, *fitness_limits(scores, fixed))
    columns = chart.generations + (1 if chart.finals else 0)
    column = (frame.right - frame.left) / max(columns, 1)
    places = _dot_places(chart, frame, column)
    parts = [
        _svg_open(width, height, _summary(chart), "fitness-chart"),
        *_axes(chart, frame, column, narrow),
        *_levels(chart, frame),
        *_lineage_path(chart, places),
        *_best_line(chart, frame, column),
        *_dots(chart, frame, places),
        *_finals(chart, frame, column),
        *_end_labels(chart, frame, narrow),
        Markup("</svg>"),
    ]
    return Markup("").join(parts)


def _svg_open(width: float, height: float, label: str, name: str) -> Markup:
    return Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(name, width, height, label)


def _summary(chart: FitnessChart) -> str:
    unit = f" {chart.unit}" if chart.unit else ""
    told = [f"best {format_number(value)}{unit} after generation {g}" for g, value in list(chart.best.items())[-1:]]
    told += [f"{level.label} {format_spread(level.mean, level.spread)}{unit}" for level in chart.levels]
    return f"Fitness over generations, {chart.candidates} candidates: " + ("; ".join(told) or "no score yet")


def _dot_places(chart: FitnessChart, frame: Frame, column: float) -> dict[str, tuple[float, float]]:
    """candidate_id -> pixel. Candidates of a generation stand side by side; those without a score in a strip below."""
    places: dict[str, tuple[float, float]] = {}
    generations: dict[int, list[Dot]] = {}
    for dot in chart.dots:
        generations.setdefault(dot.generation, []).append(dot)
    for generation, members in generations.items():
        gap = min(16.0, column * 0.8 / len(members))
        for position, dot in enumerate(members):
            x = frame.left + (generation - chart.first + 0.5) * column + (position - (len(members) - 1) / 2) * gap
            has_score = dot.fitness is not None and math.isfinite(dot.fitness)
            places[dot.candidate_id] = (
                x,
                frame.y(dot.fitness) if has_score and dot.fitness is not None else frame.bottom + 14,
            )
    return places


def _axes(chart: FitnessChart, frame: Frame, column: float, narrow: bool) -> list[Markup]:
    marks = ticks(frame.low, frame.high, 5)
    places = decimals(marks[1] - marks[0], 1) if len(marks) > 1 else None
    parts = [Markup('<g class="grid">')]
    for mark in marks:
        y = frame.y(mark)
        parts.append(_line(frame.left, y, frame.right, y))
        parts.append(_text(frame.left - 8, y + 4, format_number(mark, places=places), "tick", "end"))
    apart = math.ceil(1.0 / column)  # no two lines in one pixel
    for generation in range(1, chart.generations + (1 if chart.finals else 0), apart):
        x = frame.left + generation * column
        parts.append(_line(x, frame.top, x, frame.bottom + 26, "divider"))
    parts.append(Markup("</g>"))
    parts.append(
        _text(frame.left, frame.top - 12, f"fitness, {chart.unit}" if chart.unit else "fitness", "axis", "start")
    )
    step = math.ceil(chart.generations / (5 if narrow else 12))
    for place in range(0, chart.generations, step):
        x = frame.left + (place + 0.5) * column
        parts.append(_text(x, frame.bottom + 42, str(chart.first + place), "tick", "middle"))
    if chart.finals:
        x = frame.left + (chart.generations + 0.5) * column
        parts.append(_text(x, frame.bottom + 42, "final", "tick", "middle"))
    middle = frame.left + chart.generations * column / 2
    parts.append(_text(middle, frame.bottom + 59, "generation", "axis", "middle"))
    if any(dot.fitness is None or math.isnan(dot.fitness) for dot in chart.dots):
        parts.append(_text(frame.right + 8, frame.bottom + 18, "no score", "tick", "start"))
    parts.append(_line(frame.left, frame.bottom, frame.right, frame.bottom, "base"))
    return parts


def _levels(chart: FitnessChart, frame: Frame) -> list[Markup]:
    parts = []
    for level in chart.levels:
        if not math.isfinite(level.mean):
            continue
        spread = level.spread if level.spread is not None and math.isfinite(level.spread) else 0.0
        top, bottom = frame.y(level.mean + spread), frame.y(level.mean - spread)
        tip = f"{level.label}: {format_spread(level.mean, level.spread)} {chart.unit}".strip()
        parts.append(
            Markup(
                '<g class="level {}"><title>{}</title><rect class="band" x="{}" y="{}" width="{}" height="{}"/>'
            ).format(level.name, tip, _px(frame.left), _px(top), _px(frame.right - frame.left), _px(bottom - top))
        )
        parts.append(_line(frame.left, frame.y(level.mean), frame.right, frame.y(level.mean)) + Markup("</g>"))
    return parts


def _lineage_path(chart: FitnessChart, places: dict[str, tuple[float, float]]) -> list[Markup]:
    points = [places[name] for name in chart.lineage if name in places]
    if len(points) < 2:
        return []
    return [Markup('<polyline class="lineage" points="{}"/>').format(" ".join(f"{_px(x)},{_px(y)}" for x, y in points))]


def _best_line(chart: FitnessChart, frame: Frame, column: float) -> list[Markup]:
    if not chart.best:
        return []
    path = ""
    for generation, value in sorted(chart.best.items()):
        x, y = frame.left + (generation - chart.first) * column, frame.y(value)
        path += f"{'V' if path else f'M{_px(x)} '}{_px(y)} H{_px(x + column)} "
    return [Markup('<path class="best-line" d="{}"/>').format(path.strip())]


def _dots(chart: FitnessChart, frame: Frame, places: dict[str, tuple[float, float]]) -> list[Markup]:
    parts = []
    for dot in chart.dots:
        x, y = places[dot.candidate_id]
        if dot.kind == "pending":
            shape = Markup('<circle class="dot pending" cx="{}" cy="{}" r="4"/>').format(_px(x), _px(y))
        elif dot.fitness is None or not math.isfinite(dot.fitness):
            shape = Markup('<path class="dot none" d="M{0} {1} l7 7 m0 -7 l-7 7"/>').format(_px(x - 3.5), _px(y - 3.5))
        elif dot.fitness < frame.low:
            shape = Markup('<path class="dot below" d="M{} {} l5 -9 h-10 z"/>').format(_px(x), _px(y - 1))
        else:
            on_path = "on-path " if dot.candidate_id in chart.lineage else ""
            shape = Markup('<circle class="dot {}{}" cx="{}" cy="{}" r="{}"/>').format(
                on_path, dot.kind, _px(x), _px(y), 6.5 if dot.kind == "best" else 5
            )
        parts.append(
            Markup('<a href="#{0}" data-candidate="{0}" aria-label="{1}"><title>{1}</title>{2}</a>').format(
                dot.candidate_id, dot.tip, shape
            )
        )
    return parts


def _finals(chart: FitnessChart, frame: Frame, column: float) -> list[Markup]:
    parts = []
    gap = min(16.0, column * 0.8 / max(len(chart.finals), 1))
    for position, (value, tip) in enumerate(chart.finals):
        if not math.isfinite(value):
            continue
        x = frame.left + (chart.generations + 0.5) * column + (position - (len(chart.finals) - 1) / 2) * gap
        drawn = Markup('<path class="dot final" d="M{} {} l6 6 l-6 6 l-6 -6 z"/>').format(
            _px(x), _px(frame.y(value) - 6)
        )
        parts.append(Markup("<g><title>{}</title>{}</g>").format(tip, drawn))
    return parts


def _end_labels(chart: FitnessChart, frame: Frame, narrow: bool) -> list[Markup]:
    """Names at the right end of the lines, pushed apart where they would overlap."""
    wanted = [
        (frame.y(level.mean), level.name, level.label, level.mean)
        for level in chart.levels
        if math.isfinite(level.mean)
    ]
    if chart.best:
        last = chart.best[max(chart.best)]
        wanted.append((frame.y(last), "best-label", "best so far", last))
    parts = []
    height = 32.0
    tops = spread_apart([y for y, *_ in wanted], height, frame.top - 10, frame.bottom - 8)
    for (y, name, label, value), place in zip(wanted, tops, strict=True):
        short = label.removesuffix(" reward")
        parts.append(_line(frame.right, y, frame.right + 5, place - 2, f"leader {name}"))
        parts.append(_text(frame.right + 8, place - 2, short, f"label {name}", "start"))
        number = format_number(value) if narrow else f"{format_number(value)} {chart.unit}".strip()
        parts.append(_text(frame.right + 8, place + 12, number, f"label value {name}", "start"))
    return parts


def spread_apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places near `wanted`, in the same order, at least `gap` apart and not beyond `high` where there is room."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    places = [0.0] * len(wanted)
    previous = low - gap
    for index in order:
        previous = places[index] = max(wanted[index], previous + gap)
    limit = high
    for index in reversed(order):
        places[index] = min(places[index], limit)
        limit = places[index] - gap
    return places


def _px(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _line(x1: float, y1: float, x2: float, y2: float, name: str = "") -> Markup:
    kind = Markup(' class="{}"').format(name) if name else Markup("")
    return Markup('<line{} x1="{}" y1="{}" x2="{}" y2="{}"/>').format(kind, _px(x1), _px(y1), _px(x2), _px(y2))


def _text(x: float, y: float, text: str, name: str, anchor: str) -> Markup:
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(
        name, _px(x), _px(y), anchor, escape(text)
    )
