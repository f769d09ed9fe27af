"""Collecting on the slider, whose motion is known: x'' = 4 N x action / 1 kg, two substeps of 0.025 s each."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from distill.collect import CollectConfig, CollectReport, collect, dataset_spec, source_of
from distill.dataset.layout import ACTION, DONE, EXECUTED, QPOS, QVEL, STATE, TRUNCATED
from distill.dataset.reader import EpisodeDataset
from distill.dataset.writer import DatasetWriter
from rl.checkpoint import Policy
from rl.evaluate import evaluate
from tasks import registry
from tasks.env import make_env
from tasks.errors import UserError
from tests.eureka.command_line import SLIDER

CONFIG = CollectConfig(episodes=6, num_envs=8, seed=5, min_fitness=-0.3, num_threads=1)


def brake(observation):
    """To the middle and stop there."""
    return -2.0 * observation[:, :1] - 1.5 * observation[:, 1:]


def wild(observation):
    """Leaves the rail from the right half, stops from the left one."""
    return torch.where(observation[:, :1] > 0, 1.0, brake(observation))


@pytest.fixture
def slider():
    return registry.make(SLIDER)


def run(slider, root, config=CONFIG, policy=brake, **options):
    env = make_env(slider, 1, num_threads=1)
    spec = dataset_spec(env, "slider", config, options.get("record"))
    env.close()
    with DatasetWriter(root, spec, file_size_mb=0.05) as writer:
        return collect(slider, policy, writer, config, **{"source": "brake", **options})


def columns(root) -> list[dict[str, np.ndarray]]:
    dataset = EpisodeDataset(root)
    return [dataset.episode(number) for number in range(dataset.num_episodes)]


def assert_same_data(first, second):
    one, two = columns(first), columns(second)
    assert len(one) == len(two)
    for here, there in zip(one, two, strict=True):
        assert here.keys() == there.keys()
        assert all(np.array_equal(here[name], there[name]) for name in here)
    assert EpisodeDataset(first).origins == EpisodeDataset(second).origins


def test_what_is_recorded_is_what_happened(slider, tmp_path):
    """State, action and next state by Newton: the action of a frame is the one that led to the next."""
    report = run(slider, tmp_path / "d")
    assert (report.rounds, report.rolled, report.kept) == (1, 8, 6) and report.passed >= 6
    dataset = EpisodeDataset(tmp_path / "d")
    assert dataset.info.fps == 20 and dataset.tasks == (slider.instruction,)
    for number, found in enumerate(columns(tmp_path / "d")):
        x, v = found[QPOS][:, 0].astype(float), found[QVEL][:, 0].astype(float)
        assert len(x) == 40
        assert np.array_equal(found[STATE], np.concatenate([found[QPOS], found[QVEL]], axis=1))
        assert found[ACTION] == pytest.approx(np.clip(brake(torch.from_numpy(found[STATE])).numpy(), -1, 1), abs=1e-6)
        push = 4.0 * found[ACTION][:, 0]
        assert np.allclose(v[1:], v[:-1] + 0.05 * push[:-1], atol=1e-5)
        # semi-implicit: the first substep moves by the velocity after it, the second by the one after that
        assert np.allclose(x[1:], x[:-1] + 0.05 * v[:-1] + 0.025**2 * 3 * push[:-1], atol=1e-5)
        assert found[DONE][:, 0].tolist() == [False] * 39 + [True]
        assert found[TRUNCATED][:, 0].tolist() == [False] * 39 + [True]
        after = np.append(x[1:], x[-1] + 0.05 * v[-1] + 0.025**2 * 3 * push[-1])
        assert dataset.origins[number].fitness == pytest.approx(-np.abs(after).mean(), abs=1e-5)


def test_fitness_and_threshold_against_the_evaluation(slider, tmp_path):
    """The episodes of a round are those of an evaluation with the same seed; kept are the worlds that pass, by number."""
    report = run(slider, tmp_path / "d", dataclasses.replace(CONFIG, episodes=100, max_rounds=2), wild)
    origins = EpisodeDataset(tmp_path / "d").origins
    expected, passed = [], 0
    for seed in dict.fromkeys(origin.seed for origin in origins):
        fitness = evaluate(slider, wild, episodes=8, seed=seed, num_threads=1).per_episode
        good = [world for world in range(8) if fitness[world] >= -0.3]
        passed += len(good)
        expected += [(seed, world, pytest.approx(float(fitness[world]))) for world in good]
    assert [(o.seed, o.world, o.fitness) for o in origins] == expected
    assert len({seed for seed, *_ in expected}) == 2 and 0 < passed < 16
    assert (report.rounds, report.rolled, report.passed, report.kept) == (2, 16, passed, passed)
    assert report.yield_fraction == passed / 16 and report.min_fitness == -0.3


def test_the_seed_decides(slider, tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        run(slider, tmp_path / name, dataclasses.replace(CONFIG, seed=seed))
    assert_same_data(tmp_path / "a", tmp_path / "b")
    assert not np.array_equal(columns(tmp_path / "a")[0][STATE], columns(tmp_path / "c")[0][STATE])


def test_noise_is_carried_out_and_not_learnt(slider, tmp_path):
    config = dataclasses.replace(CONFIG, action_noise_std=0.3)
    run(slider, tmp_path / "d", config)
    run(slider, tmp_path / "again", config)
    assert_same_data(tmp_path / "d", tmp_path / "again")
    noise = []
    for found in columns(tmp_path / "d"):
        clean = np.clip(brake(torch.from_numpy(found[STATE])).numpy(), -1, 1)
        assert found[ACTION] == pytest.approx(clean, abs=1e-6)
        v, carried_out = found[QVEL][:, 0].astype(float), found[EXECUTED]
        assert np.allclose(v[1:], v[:-1] + 0.05 * 4.0 * carried_out[:-1, 0], atol=1e-5)
        assert np.abs(carried_out).max() <= 1
        noise += (carried_out - clean)[np.abs(clean) < 0.2].tolist()
    assert 0.2 < np.std(noise) < 0.4 and abs(np.mean(noise)) < 0.1


@pytest.mark.parametrize("stop", [0, 1, 4])
def test_an_interrupted_collection_ends_as_an_undisturbed_one(slider, tmp_path, stop, monkeypatch):
    config = dataclasses.replace(CONFIG, episodes=10)
    undisturbed = run(slider, tmp_path / "whole", config, wild)
    assert undisturbed.rounds >= 2
    add, added = DatasetWriter.add_episode, []

    def until(self, episode):
        if len(added) == stop:
            raise KeyboardInterrupt
        added.append(add(self, episode))

    monkeypatch.setattr(DatasetWriter, "add_episode", until)
    with pytest.raises(KeyboardInterrupt):
        run(slider, tmp_path / "d", config, wild)
    monkeypatch.setattr(DatasetWriter, "add_episode", add)
    report = run(slider, tmp_path / "d", config, wild)
    assert_same_data(tmp_path / "d", tmp_path / "whole")
    assert (report.rounds, report.rolled, report.passed, report.kept) == (
        undisturbed.rounds, undisturbed.rolled, undisturbed.passed, undisturbed.kept
    )  # fmt: skip


def test_two_collections_share_a_dataset(slider, tmp_path):
    """Another expert begins at its first round, and a larger number goes on with what is there."""
    run(slider, tmp_path / "d")
    run(slider, tmp_path / "d", source="another")
    more = run(slider, tmp_path / "d", dataclasses.replace(CONFIG, episodes=9))
    origins = EpisodeDataset(tmp_path / "d").origins
    assert [o.source for o in origins] == ["brake"] * 6 + ["another"] * 6 + ["brake"] * 3
    assert len({(o.source, o.seed, o.world) for o in origins}) == 15 and more.kept == 9
    assert {o.seed for o in origins if o.source == "brake"}.isdisjoint(
        {o.seed for o in origins if o.source == "another"}
    )


def test_words_and_observations_of_the_students(slider, tmp_path):
    """What is told can change from step to step; what is recorded need not be what the expert sees."""

    def instruct(env):
        return [
            f"world {world} {'early' if step < 30 else 'late'}" for world, step in enumerate(env.episode_step.tolist())
        ]

    run(slider, tmp_path / "d", instruct=instruct, record=lambda env, observation: observation[:, :1])
    dataset = EpisodeDataset(tmp_path / "d")
    assert dataset.state_size == 1
    for origin, found in zip(dataset.origins, columns(tmp_path / "d"), strict=True):
        words = [dataset.tasks[task] for task in found["task_index"][:, 0]]
        assert words == [f"world {origin.world} early"] * 30 + [f"world {origin.world} late"] * 10


def test_reports_come_round_by_round(slider, tmp_path):
    reports: list[CollectReport] = []
    run(slider, tmp_path / "d", dataclasses.replace(CONFIG, episodes=10), wild, on_round=reports.append)
    assert [report.rounds for report in reports] == list(range(1, len(reports) + 1))
    assert reports[-1].kept == 10 and all(report.kept < 10 for report in reports[:-1])


def test_what_is_refused(slider, tmp_path, monkeypatch):
    with pytest.raises(
        UserError, match=r"none of 16 episodes of 'slider' reached a fitness of -0\.001 m, the best -0\.\d+"
    ):
        run(slider, tmp_path / "a", dataclasses.replace(CONFIG, min_fitness=-0.001, max_rounds=2))
    with pytest.raises(UserError, match=r"actions of shape \(8, 3\), task 'slider' takes 1 each"):
        run(slider, tmp_path / "b", policy=lambda o: torch.zeros(len(o), 3))
    for changes in ({"episodes": 0}, {"num_envs": 0}, {"max_rounds": 0}, {"seed": -1}, {"action_noise_std": -0.1},
                    {"min_fitness": float("nan")}):  # fmt: skip
        with pytest.raises(UserError, match=f"collect: {next(iter(changes))} is"):
            dataclasses.replace(CONFIG, **changes)
    monkeypatch.setattr(type(slider), "fitness", lambda self, signals: signals["mass_position"][:, 0] / 0.0)
    with pytest.raises(UserError, match="fitness of task 'slider' is not finite in 8 episodes"):
        run(slider, tmp_path / "c")


def test_the_name_of_a_policy():
    meta = {"task": "ant-run", "iteration": 400, "sha256": "0123456789abcdef"}
    assert source_of(Policy(torch.nn.Identity(), meta)) == "ant-run iteration 400 0123456789ab"
