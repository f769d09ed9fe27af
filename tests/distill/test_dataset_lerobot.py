"""The real lerobot opens what we wrote. It needs gigabytes of packages, so it runs where somebody has installed them.

`pip install lerobot` in an environment of its own, then `python -m pytest tests/distill/test_dataset_lerobot.py`
there, with `--noconftest -p no:cacheprovider` where that environment lacks what the rest of the tests needs.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from distill.dataset.layout import ACTION, DONE, QPOS, STATE
from distill.dataset.writer import DatasetWriter
from tests.distill.datasets import FPS, SPEC, episode, length, write

COUNT = 7

lerobot_dataset = pytest.importorskip("lerobot.datasets.lerobot_dataset", reason="lerobot is not installed")


@pytest.fixture(scope="module", autouse=True)
def _no_hub():
    """Nothing is looked for on a hub: that would hide a folder that lerobot cannot read."""
    import huggingface_hub.constants

    before, huggingface_hub.constants.HF_HUB_OFFLINE = huggingface_hub.constants.HF_HUB_OFFLINE, True
    yield
    huggingface_hub.constants.HF_HUB_OFFLINE = before


@pytest.mark.parametrize("sizes", [{}, {"file_size_mb": 0.012, "chunks_size": 2}])
def test_lerobot_reads_every_frame(tmp_path, sizes):
    """One file, and several in several chunks."""
    root = write(tmp_path / "d", range(COUNT), **sizes)
    dataset = lerobot_dataset.LeRobotDataset("eureka/slider", root=root)
    assert (dataset.num_episodes, dataset.fps, dataset.meta.robot_type) == (COUNT, FPS, "slider")
    assert len(dataset) == sum(map(length, range(COUNT)))
    place = 0
    for number in range(COUNT):
        wanted, frames = episode(number), length(number)
        words = [wanted.tasks] * frames if isinstance(wanted.tasks, str) else list(wanted.tasks)
        row = dataset.meta.episodes[number]
        assert (row["dataset_from_index"], row["dataset_to_index"]) == (place, place + frames)
        assert set(row["tasks"]) == set(words) and row["fitness"] == wanted.origin.fitness
        for step in range(frames):
            item = dataset[place + step]
            for name in (STATE, ACTION):
                assert item[name].numpy().tobytes() == wanted.columns[name][step].tobytes()
            assert item[QPOS].item() == wanted.columns[QPOS][step, 0]
            assert item[DONE].item() == (step == frames - 1)
            assert (item["task"], item["frame_index"].item(), item["episode_index"].item()) == (
                words[step],
                step,
                number,
            )
            assert item["timestamp"].item() == np.float32(step / FPS)
        place += frames


def test_lerobot_cuts_chunks(tmp_path):
    """Its delta timestamps: chunks of four actions, padded at the end of an episode."""
    root = write(tmp_path / "d", [4])
    chunk = {ACTION: [step / FPS for step in range(4)]}
    item = lerobot_dataset.LeRobotDataset("eureka/slider", root=root, delta_timestamps=chunk)[1]
    wanted = episode(4).columns[ACTION]
    assert item[ACTION].numpy().tolist() == wanted[[1, 2, 2, 2]].tolist()
    assert item[f"{ACTION}_is_pad"].tolist() == [False, False, True, True]


def test_statistics_are_those_of_lerobot(tmp_path):
    """Its own statistics of the same columns; its quantiles come from a histogram of 5,000 bins."""
    from lerobot.datasets.compute_stats import aggregate_stats, compute_episode_stats

    dataset = lerobot_dataset.LeRobotDataset("eureka/slider", root=write(tmp_path / "d", range(COUNT)))
    features = {name: {"dtype": f.dtype, "shape": f.shape} for name, f in SPEC.features.items()}
    given = [{n: c for n, c in episode(number).columns.items() if n in (ACTION, QPOS)} for number in range(COUNT)]
    theirs = aggregate_stats([compute_episode_stats(columns, features) for columns in given])
    for name in (ACTION, QPOS):
        assert set(theirs[name]) == set(dataset.meta.stats[name])
        spread = theirs[name]["max"] - theirs[name]["min"]
        for key, value in theirs[name].items():
            ours = dataset.meta.stats[name][key]
            # with few frames a quantile lies between two of them, and a histogram takes the one below or above
            tolerance = spread if key.startswith("q") else 1e-5 * np.ones_like(spread)
            assert ours.shape == value.shape and (np.abs(ours - value) <= tolerance).all(), (name, key)


def test_lerobot_reads_subtasks(tmp_path):
    with DatasetWriter(tmp_path / "d", dataclasses.replace(SPEC, subtasks=True)) as writer:
        writer.add_episode(dataclasses.replace(episode(1), subtasks=["reach"] * 2 + ["grasp"] * 4))
    dataset = lerobot_dataset.LeRobotDataset("eureka/slider", root=tmp_path / "d")
    assert [dataset[step]["subtask"] for step in range(6)] == ["reach"] * 2 + ["grasp"] * 4


def test_lerobot_goes_on_recording(tmp_path):
    """Its own writer adds an episode to our folder, and all of it can be read again."""
    root = write(tmp_path / "d", range(2))
    dataset = lerobot_dataset.LeRobotDataset("eureka/slider", root=root)
    wanted = episode(4)
    for step in range(length(4)):
        frame = {name: column[step] for name, column in wanted.columns.items()}
        frame |= {"simulator.seed": np.array([1]), "simulator.world": np.array([2]), "task": "lift"}
        frame[DONE] = np.array([frame[DONE]])
        dataset.add_frame(frame)
    dataset.save_episode()
    dataset.finalize()
    again = lerobot_dataset.LeRobotDataset("eureka/slider", root=root)
    assert again.num_episodes == 3 and again[len(again) - 1]["task"] == "lift"
