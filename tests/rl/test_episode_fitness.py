"""Episode fitness against numbers computed by hand. Two worlds, time limit of 4 steps."""

from __future__ import annotations

import pytest
import torch

from rl.episode_fitness import EpisodeFitness

NO = torch.tensor([False, False])
WORLD_0 = torch.tensor([True, False])
WORLD_1 = torch.tensor([False, True])


@pytest.mark.parametrize(
    ("reduce", "expected_0", "expected_1"),
    [
        ("mean", (1.0 + 5.0 - 2 * 7.0) / 4, (2.0 + 4.0 + 0.0 + 6.0) / 4),  # world 0 misses two steps at -7
        ("sum", 6.0, 12.0),
        ("max", 5.0, 6.0),
        ("last", 5.0, 6.0),
    ],
)
def test_reductions(reduce, expected_0, expected_1):
    """World 0 gives 1, 5 and fails; world 1 gives 2, 4, 0, 6 and reaches the limit."""
    tracker = EpisodeFitness(2, 4, reduce, -7.0)
    tracker.add(torch.tensor([1.0, 2.0]), NO, NO)
    first = tracker.add(torch.tensor([5.0, 4.0]), WORLD_0, NO)
    tracker.add(torch.tensor([-9.0, 0.0]), NO, NO)  # world 0 is in its next episode already
    second = tracker.add(torch.tensor([-8.0, 6.0]), WORLD_1, NO)
    assert first[0].item() == pytest.approx(expected_0)
    assert second[1].item() == pytest.approx(expected_1)


@pytest.mark.parametrize(
    ("reduce", "expected"), [("mean", (1.0 - 3 * 7.0) / 4), ("sum", 1.0), ("max", 1.0), ("last", 1.0)]
)
def test_the_step_of_a_divergence_does_not_count(reduce, expected):
    """World 0 gives 1, then diverges: 99 is the fitness of a state that is not the episode's."""
    tracker = EpisodeFitness(2, 4, reduce, -7.0)
    tracker.add(torch.tensor([1.0, 0.0]), NO, NO)
    value = tracker.add(torch.tensor([99.0, 0.0]), WORLD_0, WORLD_0)
    assert value[0].item() == pytest.approx(expected)


def test_episodes_do_not_leak_into_the_next_one():
    tracker = EpisodeFitness(1, 4, "max", 0.0)
    tracker.add(torch.tensor([50.0]), torch.tensor([True]), torch.tensor([False]))
    value = tracker.add(torch.tensor([-3.0]), torch.tensor([True]), torch.tensor([False]))
    assert value.item() == -3.0  # not 50, and not the 0 that the buffer starts with


@pytest.mark.parametrize("reduce", ["mean", "sum", "max"])
def test_nan_stays_nan_in_its_own_world(reduce):
    tracker = EpisodeFitness(2, 4, reduce, 0.0)
    tracker.add(torch.tensor([torch.nan, 1.0]), NO, NO)
    value = tracker.add(torch.tensor([1.0, 1.0]), WORLD_0 | WORLD_1, NO)
    assert value[0].isnan()
    assert value[1].isfinite()
    again = tracker.add(torch.tensor([1.0, 1.0]), NO, NO)
    assert again.isfinite().all()


def test_unknown_reduction():
    with pytest.raises(ValueError, match="median"):
        EpisodeFitness(1, 4, "median", 0.0)
