"""The population benchmark at toy size, its comparison with numbers worked out by hand."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.population import Cost, compare, main
from rl import population_worker, worker


def test_a_difference_beside_its_error():
    """Means 2 and 5, variances 1 and 4 of three each: error sqrt(1/3 + 4/3)."""
    alone, together = [[{"area": value} for value in row] for row in ((1.0, 2.0, 3.0), (3.0, 5.0, 7.0))]
    told = compare(alone, together, "area")
    assert told["difference"] == pytest.approx(3.0) and told["error"] == pytest.approx(math.sqrt(5 / 3))
    assert told["z"] == pytest.approx(3.0 / math.sqrt(5 / 3))
    assert compare(alone, alone, "area")["z"] == 0.0
    assert compare(alone[:1], together, "area")["z"] is None
    assert compare([{"area": 1.0}] * 3, [{"area": 2.0}] * 3, "area")["z"] == math.inf


def test_it_runs(tmp_path: Path, monkeypatch, capsys):
    """Two candidates, two iterations; workers in this process. What is there already is not run again."""
    monkeypatch.setattr(worker, "terminate_by_signals", lambda: None)
    monkeypatch.setattr(population_worker, "terminate_by_signals", lambda: None)
    started: list[tuple[list[str], bool]] = []

    def start(folders: Sequence[Path], together: bool) -> Cost:
        started.append(([folder.name for folder in folders], together))
        assert [worker.main([str(folder)]) for folder in folders] == [0] * len(folders)
        return Cost(2.0, time.process_time())

    words = [
        "--candidates",
        "2",
        "--seeds",
        "0",
        "--iterations",
        "2",
        "--num-envs",
        "32",
        "--ways",
        "sequential",
        "population",
    ]
    for _ in range(2):
        main([*words, "--out", str(tmp_path)], start)
    assert started == [(["c00", "c01"], False), (["job"], False)]
    printed = capsys.readouterr().out
    assert "seed 0 population" in printed and "3600.0 candidates/h" in printed
    found = json.loads((tmp_path / "population.json").read_text())
    for row in found["compared"]:  # after two iterations they are still equal but for rounding
        assert row["fitness"]["alone"] == pytest.approx(row["fitness"]["population"], abs=0.05)
