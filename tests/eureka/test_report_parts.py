"""The report's parts by themselves: numbers, axes, curves, highlighting, diffs; against values worked out by hand."""

from __future__ import annotations

import math

import pytest

from eureka.report_charts import fitness_limits, spread_apart, ticks
from eureka.report_curves import training_curves
from eureka.report_text import format_number, format_seconds, format_spread, highlight, unified_diff
from tests.eureka.html_page import Page
from tests.eureka.report_fixture import GRANDCHILD, PARENT


@pytest.mark.parametrize(
    ("value", "text"),
    [(4.1234, "4.12"), (0.012345, "0.0123"), (123.45, "123"), (98765.4, "98,765"), (-0.5, "−0.500"), (0.0, "0"),
     (2.5e-6, "2.50e−6"), (math.nan, "NaN"), (-math.inf, "−∞"), (None, "–")],
)  # fmt: skip
def test_numbers(value: float | None, text: str) -> None:
    assert format_number(value) == text


def test_spreads_and_durations() -> None:
    assert format_spread(4.1234, 0.0831) == "4.12 ± 0.08"
    assert format_spread(4.1234, 0.000831) == "4.12 ± 0.0008"
    assert format_spread(-0.0123, 1.5) == "−0.0123 ± 1.50"
    assert format_spread(None, None) == "–"
    assert format_spread(1.0, None) == "1.00"
    assert [format_seconds(t) for t in (0.42, 42.4, 59.7, 185.0, 4320.0)] == [
        "0.42 s", "42 s", "1 min 00 s", "3 min 05 s", "1 h 12 min"]  # fmt: skip


def test_axes() -> None:
    assert ticks(0.0, 1.0, 5) == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(-3.2, 11.0, 5) == pytest.approx([0.0, 5.0, 10.0])
    low, high = fitness_limits([-0.2, -0.3, -0.25, -40.0, -0.4], [-0.5])
    assert -1.5 < low < -0.5  # the one far off does not flatten the others
    assert high > -0.2
    assert fitness_limits([1.0], [])[0] < 1.0
    places = spread_apart([10.0, 12.0, 90.0], 15.0, 0.0, 100.0)
    assert places == [10.0, 25.0, 90.0]
    assert spread_apart([95.0, 99.0], 15.0, 0.0, 100.0) == [85.0, 100.0]


def test_curves_keep_gaps_and_nan() -> None:
    metrics = [
        {"iteration": i, "fitness": None if i == 1 else float(i), "components": {"a": {"mean": m, "min": m, "max": m}}}
        for i, m in enumerate([1.0, 2.0, "nan", 4.0, 5.0], start=1)
    ]
    fitness, component = training_curves(metrics, "m")
    assert [point[0] for point in fitness.points] == [2, 3, 4, 5]
    assert component.nonfinite == 1
    assert component.drawing.count("<polyline") == 2  # one on each side of the gap
    assert component.drawing.count('class="nan"') == 1
    assert "nan" not in component.drawing.replace('class="nan"', "")
    assert (
        len(training_curves([{**metrics[0], "fitness": 1.0, "iteration": i} for i in range(3000)], "")[0].points) <= 122
    )


@pytest.mark.parametrize(
    "source", [PARENT, GRANDCHILD, "def f(:\n  '''open\n", "x = 'a<b>&'  # <i>\n\ty = f'{x!r}'", ""]
)
def test_highlighting_changes_no_character(source: str) -> None:
    """Every program reads back as it was, broken ones too, and only our own tags are markup."""
    shown = Page(f"<pre>{highlight(source)}</pre>")
    assert "".join(shown.elements[0][2]) == "".join(line + "\n" for line in source.splitlines())
    assert {tag for tag, *_ in shown.elements} <= {"pre", "span", "i"}
    assert {attrs.get("class") for tag, attrs, _ in shown.elements if tag == "i"} <= set("kscndb")


def test_diff_kinds() -> None:
    rows = unified_diff("a\n-- b\nc\n", "a\nc\n++ d\n", "old", "new")
    assert [kind for kind, _ in rows] == ["head", "head", "hunk", "same", "del", "same", "add"]
    assert unified_diff("a\n", "a\n", "old", "new") == []
