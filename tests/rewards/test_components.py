"""Episode statistics against numbers worked out by hand."""

import math

import pytest
import torch

from rewards.components import ComponentStats, EpisodeStatistics


def add(statistics: EpisodeStatistics, speed: list[float], done: list[int], total: list[float] | None = None) -> None:
    values = torch.tensor(speed)
    whole = values * 10 if total is None else torch.tensor(total)
    statistics.add({"speed": values}, whole, torch.tensor(done, dtype=torch.bool))


def test_episode_means_and_their_statistics() -> None:
    """World 0: episodes [1, 3] and [5]; world 1: one episode [2, 2, 8]. Means 2, 5, 4."""
    statistics = EpisodeStatistics(2, ["speed"], "cpu")
    add(statistics, [1.0, 2.0], [0, 0])
    add(statistics, [3.0, 2.0], [1, 0])
    assert statistics.collect()["speed"] == ComponentStats(2.0, 2.0, 2.0, 1, 0)
    add(statistics, [5.0, 8.0], [1, 1])
    add(statistics, [7.0, 7.0], [0, 0])  # still running, counts for nothing yet
    result = statistics.collect()
    assert list(result) == ["speed", "total"]
    assert result["speed"] == ComponentStats(4.5, 4.0, 5.0, 2, 0)
    assert result["total"] == ComponentStats(45.0, 40.0, 50.0, 2, 0)
    add(statistics, [9.0, 0.0], [1, 0])
    assert statistics.collect()["speed"] == ComponentStats(8.0, 8.0, 8.0, 1, 0)


def test_no_finished_episode_is_none_and_not_a_number() -> None:
    statistics = EpisodeStatistics(2, ["speed"], "cpu")
    add(statistics, [1.0, 1.0], [0, 0])
    assert statistics.collect()["total"] == ComponentStats(None, None, None, 0, 0)


def test_one_nan_step_makes_its_episode_nan_and_no_other() -> None:
    statistics = EpisodeStatistics(3, ["speed"], "cpu")
    add(statistics, [1.0, math.nan, 4.0], [0, 0, 0])
    add(statistics, [3.0, 1.0, 4.0], [1, 0, 0])
    assert statistics.collect()["speed"] == ComponentStats(2.0, 2.0, 2.0, 1, 0)
    add(statistics, [6.0, 1.0, 4.0], [1, 1, 1])
    stats = statistics.collect()["speed"]
    assert math.isnan(stats.mean or 0) and math.isnan(stats.min or 0) and math.isnan(stats.max or 0)
    assert (stats.count, stats.nonfinite) == (3, 1)
    add(statistics, [1.0, 1.0, 1.0], [1, 1, 1])  # the world with the NaN starts anew
    assert statistics.collect()["speed"] == ComponentStats(1.0, 1.0, 1.0, 3, 0)


def test_infinite_episodes_are_counted_and_shown() -> None:
    statistics = EpisodeStatistics(2, ["speed"], "cpu")
    add(statistics, [math.inf, 2.0], [1, 1])
    stats = statistics.collect()["speed"]
    assert (stats.mean, stats.min, stats.max, stats.nonfinite) == (math.inf, 2.0, math.inf, 1)


def test_long_episodes_keep_their_digits() -> None:
    """2,000 steps of 0.1 as float32: a float32 running sum would be wrong in the sixth digit."""
    statistics = EpisodeStatistics(1, [], "cpu")
    for step in range(2_000):
        statistics.add({}, torch.tensor([0.1]), torch.tensor([step == 1_999]))
    assert statistics.collect()["total"].mean == pytest.approx(float(torch.tensor(0.1)), rel=1e-12)


def test_names_must_match() -> None:
    statistics = EpisodeStatistics(1, ["speed"], "cpu")
    with pytest.raises(ValueError, match="expected \\['speed'\\]"):
        statistics.add({"spede": torch.zeros(1)}, torch.zeros(1), torch.zeros(1, dtype=torch.bool))
    with pytest.raises(ValueError, match="total"):
        EpisodeStatistics(1, ["total"], "cpu")
