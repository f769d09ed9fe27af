"""The mixture: shares, epochs, groups, and going on in the middle."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest
import torch

from distill.dataset.layout import ACTION, STATE, Feature
from distill.dataset.mixture import MixtureLoader, MixtureSource
from distill.dataset.reader import EpisodeDataset
from distill.dataset.writer import DatasetWriter
from tasks.errors import UserError
from tests.distill.datasets import SPEC, episode, length, write

SIZES = (sum(map(length, range(4))), sum(map(length, range(4, 7))), sum(map(length, range(3))))


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """Two datasets of one body, and one of a body with four observations."""
    folder = tmp_path_factory.mktemp("mixture")
    other = dataclasses.replace(SPEC, features={**SPEC.features, STATE: Feature("float32", (4,))})
    with DatasetWriter(folder / "c", other) as writer:
        for number in range(3):
            writer.add_episode(episode(number, other))
    places = [write(folder / "a", range(4)), write(folder / "b", range(4, 7)), folder / "c"]
    return [EpisodeDataset(place) for place in places]


def sources(datasets, weights=(2.0, 1.0, 1.0)):
    bodies = ("slider", "slider", "walker")
    return [MixtureSource(d, body, 2, 3, w) for d, body, w in zip(datasets, bodies, weights, strict=True)]


def loader(datasets, *, batch_size=10, seed=3, **options) -> MixtureLoader:
    return MixtureLoader(sources(datasets, **options), batch_size=batch_size, seed=seed)


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(getattr(first[body], f.name), getattr(second[body], f.name))
        if isinstance(getattr(first[body], f.name), torch.Tensor)
        else getattr(first[body], f.name) == getattr(second[body], f.name)
        for body in first
        for f in dataclasses.fields(first[body])
    )


def test_batches_are_grouped_by_body(datasets):
    batch = loader(datasets).next_batch()
    assert list(batch) == ["slider", "walker"]
    slider, walker = batch.values()
    assert slider.state.shape[1:] == (2, 3) and walker.state.shape[1:] == (2, 4)
    assert slider.actions.shape[1:] == walker.actions.shape[1:] == (3, 2)
    assert len(slider.state) + len(walker.state) == 10
    assert slider.state.dtype == slider.actions.dtype == torch.float32
    assert len(slider.instructions) == len(slider.action_mask) == len(slider.state)


@pytest.mark.parametrize("weights", [(2.0, 1.0, 1.0), (0.07, 5.0, 0.5), (1.0, 1e-3, 1e-3)])
@pytest.mark.parametrize("batch_size", [1, 2, 10])
def test_shares_are_the_weights(datasets, weights, batch_size):
    """After every batch, within as many samples as there are datasets."""
    mixture = loader(datasets, weights=weights, batch_size=batch_size)
    shares = np.array(weights) / sum(weights)
    for number in range(1, 40):
        batch = mixture.next_batch()
        assert sum(len(part.state) for part in batch.values()) == batch_size
        drawn = np.array(mixture.state_dict()["drawn"])
        assert np.abs(drawn - shares * number * batch_size).max() <= len(shares)
    assert mixture.epochs() == pytest.approx([d / s for d, s in zip(drawn, SIZES, strict=True)])


def test_every_frame_once_an_epoch_in_another_order(datasets):
    """The actions of two epochs, whose numbers are all different, tell which frames came."""
    mixture = MixtureLoader([MixtureSource(datasets[0], "slider", 1, 1)], batch_size=1, seed=3)
    epochs = [[mixture.next_batch()["slider"].actions[0, 0].tolist() for _ in range(SIZES[0])] for _ in range(2)]
    wanted = Counter(tuple(row) for number in range(4) for row in episode(number).columns[ACTION].tolist())
    assert max(wanted.values()) == 1
    for epoch in epochs:
        assert Counter(map(tuple, epoch)) == wanted
    assert epochs[0] != epochs[1]
    assert mixture.epochs() == (2.0,)


def test_a_batch_larger_than_a_dataset(datasets):
    mixture = MixtureLoader([MixtureSource(datasets[0], "slider", 1, 1)], batch_size=3 * SIZES[0], seed=3)
    rows = Counter(map(tuple, mixture.next_batch()["slider"].actions[:, 0].tolist()))
    assert set(rows.values()) == {3} and len(rows) == SIZES[0]


def test_the_seed_decides(datasets):
    one, two, other = (list(itertools.islice(loader(datasets, seed=seed), 5)) for seed in (1, 1, 2))
    assert all(map(same, one, two))
    assert not any(map(same, one, other))


def test_going_on_in_the_middle(datasets):
    """Over the end of an epoch too."""
    whole = loader(datasets)
    batches = [whole.next_batch() for _ in range(8)]
    for stop in range(8):
        first, second = loader(datasets), loader(datasets)
        for _ in range(stop):
            first.next_batch()
        second.load_state_dict(first.state_dict())
        assert all(same(second.next_batch(), batch) for batch in batches[stop:])
    assert min(whole.epochs()) > 1


def test_a_place_in_another_mixture_is_refused(datasets):
    state = loader(datasets).state_dict()
    for changed in ({"seed": 4}, {"batch_size": 11}, {"weights": (1.0, 1.0, 1.0)}):
        with pytest.raises(UserError, match="the saved place is of other datasets, weights, seed or batch size"):
            loader(datasets, **changed).load_state_dict(state)
    with pytest.raises(UserError, match="the saved place"):
        MixtureLoader(sources(datasets)[:0:-1], batch_size=10, seed=3).load_state_dict(state)


def test_sources_that_are_refused(datasets):
    def refused(match, *changed, **options):
        with pytest.raises(UserError, match=match):
            MixtureLoader(changed, **{"batch_size": 4, "seed": 0, **options})

    one, two, three = sources(datasets)
    refused("mixture: 0 datasets")
    refused("batch_size 0", one, batch_size=0)
    refused("seed -1", one, seed=-1)
    refused("weight 0.0", dataclasses.replace(one, weight=0.0))
    refused("weight nan", dataclasses.replace(one, weight=float("nan")))
    refused("horizon 0", dataclasses.replace(one, horizon=0))
    refused("have history and horizon 2, 3 and 2, 5", one, dataclasses.replace(two, horizon=5))
    refused(
        "observations have 4 numbers, those of embodiment 'slider' 3",
        one,
        dataclasses.replace(three, embodiment="slider"),
    )
