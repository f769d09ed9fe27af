"""A short soak, and that a soak would see growth."""

from __future__ import annotations

from pathlib import Path

from benchmarks.soak import LIMITS, grown, soak

ROOT = Path(__file__).parents[2]
FLAT = {"seconds": 0.1, "memory_mb": 300.0, "descriptors": 12.0, "threads": 3.0, "zombies": 0.0}


def test_a_soak_sees_what_grows() -> None:
    assert grown([FLAT] * 40) == []
    for name in LIMITS:
        rows = [FLAT | {name: FLAT[name] + 0.05 * max(FLAT[name], 1.0) * number} for number in range(40)]
        assert [line.split()[0] for line in grown(rows)] == [name]


def test_a_short_search_leaks_nothing(tmp_path: Path) -> None:
    """Descriptors, threads and zombies after a hundred candidates are those after the first generations."""
    rows = soak(tmp_path / "run", 96, 8, 4, str(ROOT / "tests" / "data" / "slider.py"))
    assert len(rows) == 12
    for name in ("descriptors", "threads", "zombies"):
        assert rows[-1][name] <= rows[3][name], name
    assert rows[-1]["memory_mb"] <= rows[3]["memory_mb"] + 30
