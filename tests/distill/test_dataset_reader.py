"""Reading: windows against a loop over frames, other writers' files, and everything that is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from distill.dataset.layout import ACTION, STATE
from distill.dataset.reader import EpisodeDataset
from distill.dataset.windows import cut_windows
from distill.dataset.writer import DatasetWriter
from tasks.errors import UserError
from tests.distill.datasets import SPEC, STATE_SIZE, assert_holds, episode, length, write

COUNT = 7
DATA, EPISODES = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Seven episodes in one file; not to be changed."""
    return write(tmp_path_factory.mktemp("datasets") / "d", range(COUNT))


@pytest.mark.parametrize(("history", "horizon"), [(1, 1), (3, 4), (5, 16)])
def test_windows_against_a_loop(root, history, horizon):
    """Every frame of every episode, step by step from what was written."""
    dataset = EpisodeDataset(root)
    place = 0
    for number in range(COUNT):
        wanted, frames = episode(number), length(number)
        words = [wanted.tasks] * frames if isinstance(wanted.tasks, str) else list(wanted.tasks)
        cut = cut_windows(dataset, np.arange(place, place + frames), history, horizon)
        assert cut.instructions == tuple(words) and cut.subtasks == ("",) * frames
        for step in range(frames):
            assert dataset.frame(number, step) == place + step
            for back in range(history):
                t = step - back
                assert bool(cut.state_mask[step, history - 1 - back]) == (t >= 0)
                assert cut.state[step, history - 1 - back].tolist() == wanted.columns[STATE][max(t, 0)].tolist()
            valid = True
            for ahead in range(horizon):
                t = step + ahead
                valid = valid and t < frames and words[t] == words[step]
                assert bool(cut.action_mask[step, ahead]) == valid
                if valid:
                    assert cut.actions[step, ahead].tolist() == wanted.columns[ACTION][t].tolist()
                else:  # filled up with the last one that is valid
                    assert torch.equal(cut.actions[step, ahead], cut.actions[step, ahead - 1])
        place += frames
    with pytest.raises(IndexError):
        dataset.frame(0, length(0))


def test_a_chunk_ends_where_the_subtask_changes(tmp_path):
    with DatasetWriter(tmp_path / "d", dataclasses.replace(SPEC, subtasks=True)) as writer:
        writer.add_episode(dataclasses.replace(episode(1), subtasks=["reach"] * 2 + ["grasp"] * 4))
    cut = cut_windows(EpisodeDataset(tmp_path / "d"), np.arange(6), 1, 3)
    assert cut.subtasks == ("reach",) * 2 + ("grasp",) * 4
    assert cut.action_mask.sum(dim=1).tolist() == [2, 1, 3, 3, 2, 1]


def test_frames_are_mapped_and_cannot_be_changed(root):
    frames = EpisodeDataset(root).frames
    assert isinstance(frames.state, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        frames.state[0] = 1.0
    cut = cut_windows(EpisodeDataset(root), np.array([0]), 1, 1)
    cut.state.fill_(7.0)  # a batch is a copy
    assert not (frames.state[0] == 7.0).all()


def test_many_files_read_as_one(root, tmp_path):
    many = EpisodeDataset(write(tmp_path / "d", range(COUNT), file_size_mb=0.007, chunks_size=2)).frames
    one = EpisodeDataset(root).frames
    for field in dataclasses.fields(one):
        assert np.array_equal(getattr(many, field.name), getattr(one, field.name)), field.name


def rewrite(path: Path, change: Callable[[dict], dict]) -> None:
    """Read a file into lists, change them, and write it as pyarrow does by itself: lists of any length."""
    pq.write_table(pa.table(change(pq.ParquetFile(path).read().to_pydict())), path)


def test_another_writers_files(tmp_path):
    """Lists of any length, doubles, no columns of ours, a video: what other v3.0 datasets have."""
    root = write(tmp_path / "d", range(COUNT))
    rewrite(root / DATA, lambda columns: {n: c for n, c in columns.items() if not n.startswith("simulator.")})
    ours = ("source", "seed", "world", "fitness")
    rewrite(root / EPISODES, lambda columns: {n: c for n, c in columns.items() if n not in ours})
    info = json.loads((root / "meta/info.json").read_text())
    info["features"] = {n: f for n, f in info["features"].items() if not n.startswith("simulator.")}
    info["features"]["observation.images.front"] = {
        "dtype": "video", "shape": [64, 64, 3], "names": ["height", "width", "channels"]
    }  # fmt: skip
    info["robot_type"] = None
    (root / "meta/info.json").write_text(json.dumps(info))
    dataset = EpisodeDataset(root)
    assert dataset.origins is None
    assert dataset.frames.action.tobytes() == b"".join(episode(n).columns[ACTION].tobytes() for n in range(COUNT))
    assert dataset.episode(3)[STATE].astype(np.float32).tobytes() == episode(3).columns[STATE].tobytes()


def info_with(**changes: object) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = root / "meta/info.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def feature_with(name: str, **changes: object) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = root / "meta/info.json"
        info = json.loads(path.read_text())
        info["features"][name].update(changes)
        path.write_text(json.dumps(info))

    return change


def cut_off(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[:-100])


def removed(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).unlink()


def flipped(root: Path) -> None:
    """One bit of one number, which would be another number without the page's checksum."""
    data = bytearray((root / DATA).read_bytes())
    column = pq.ParquetFile(root / DATA).metadata.row_group(0).column(0)
    start = column.data_page_offset if column.dictionary_page_offset is None else column.dictionary_page_offset
    data[start + column.total_compressed_size - 3] ^= 1  # within the values of the last page: headers have no checksum
    (root / DATA).write_bytes(bytes(data))


def data_with(name: str, change: Callable[[list], list]) -> Callable[[Path], None]:
    return lambda root: rewrite(root / DATA, lambda columns: {**columns, name: change(columns[name])})


def rows_with(name: str, change: Callable[[list], list]) -> Callable[[Path], None]:
    return lambda root: rewrite(root / EPISODES, lambda columns: {**columns, name: change(columns[name])})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda root: shutil.rmtree(root / "meta"), ["holds no dataset"]),
        (lambda root: shutil.rmtree(root), ["does not exist", "Did you mean 'data-b'?"]),
        (info_with(codebase_version="v2.1"), ["format 'v2.1', expected 'v3.0'", "convert_dataset_v21_to_v30"]),
        (info_with(codebase_version="v9.0"), ["format 'v9.0'", "another version of LeRobot"]),
        (info_with(codebase_version=None), ["format None"]),
        (info_with(total_frames="many"), ["total_frames is 'many'"]),
        (info_with(fps=0), ["fps is 0"]),
        (info_with(features=[]), ["features is []"]),
        (info_with(total_episodes=0), ["holds no episodes yet"]),
        (info_with(total_episodes=9), ["counts 9 episodes, meta/episodes has 7"]),
        (info_with(total_frames=35), ["counts 35 frames, its 7 episodes have"]),
        (info_with(data_path="data/{episode_index}.parquet"), ["data_path is"]),
        (feature_with(STATE, shape=[8]), ["'observation.state' has 3 numbers a frame", "says 8"]),
        (feature_with(STATE, dtype="string"), ["'observation.state' of numbers (n,); it has string [3]"]),
        (feature_with(ACTION, shape=[2, 2]), ["'action' of numbers (n,); it has float32 [2, 2]"]),
        (feature_with(ACTION, shape="2"), ["feature 'action' is"]),
        (lambda root: (root / "meta/info.json").write_text("{"), ["not valid JSON"]),
        (cut_off(DATA), [DATA, "damaged, or no Parquet file"]),
        (cut_off(EPISODES), [EPISODES, "damaged, or no Parquet file"]),
        (cut_off("meta/tasks.parquet"), ["tasks.parquet: damaged"]),
        (flipped, [DATA, "damaged"]),
        (removed(DATA), [DATA, "no such file"]),
        (removed(EPISODES), ["meta/episodes is missing"]),
        (removed("meta/tasks.parquet"), ["tasks.parquet: no such file"]),
        (data_with("episode_index", lambda c: [c[0] + 1, *c[1:]]), ["frames of others"]),
        (data_with("task_index", lambda c: [9, *c[1:]]), ["a task_index is 9, but there are 3 texts"]),
        (data_with(STATE, lambda c: [[float("nan")] * STATE_SIZE, *c[1:]]), ["not finite"]),
        (data_with(STATE, lambda c: [None, *c[1:]]), ["has 1 rows without a value"]),
        (data_with(ACTION, lambda c: [[0.0], *c[1:]]), ["rows of different lengths"]),
        (rows_with("dataset_from_index", lambda c: [1, *c[1:]]), ["disagree"]),
        (rows_with("length", lambda c: [0, *c[1:]]), ["disagree"]),
        (lambda root: shutil.copy(root / "meta/tasks.parquet", root / DATA), ["has no column 'observation.state'"]),
    ],
)
def test_damaged_and_foreign_datasets(root, tmp_path, damage, words):
    """One line each, with the file that it is about."""
    copy = tmp_path / "data-a"
    shutil.copytree(root, copy)
    (tmp_path / "data-b").mkdir()
    damage(copy)
    with pytest.raises(UserError) as caught:
        EpisodeDataset(copy).frames  # noqa: B018
    message = str(caught.value)
    assert str(copy) in message or message.startswith("meta/info.json"), message
    assert all(word in message for word in words) and "\n" not in message, message


def test_sizes_of_an_embodiment(root):
    dataset = EpisodeDataset(root)
    dataset.require_sizes("slider", 3, 2)
    with pytest.raises(
        UserError, match=r"observations have 3 numbers, those of embodiment 'ant' 27; it is of 'slider'"
    ):
        dataset.require_sizes("ant", 27, 2)
    with pytest.raises(UserError, match=r"actions have 2 numbers, those of embodiment 'ant' 8"):
        dataset.require_sizes("ant", 3, 8)


def test_no_room_for_the_frames(root, monkeypatch):
    def full(self, column, where):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("distill.dataset.reader._Spill.add", full)
    with pytest.raises(UserError, match=r"no room for the frames .*No space left on device.*TMPDIR"):
        EpisodeDataset(root).frames  # noqa: B018


def test_without_pyarrow(root, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"need pyarrow.*pip install 'eureka-skills\[distill\]'"):
        EpisodeDataset(root)


def test_a_writer_at_work_is_read_around(tmp_path):
    """What was sealed when the dataset was opened is seen; the rest is not missed."""
    writer = DatasetWriter(tmp_path / "d", SPEC, file_size_mb=0.01)
    for number in range(3):
        writer.add_episode(episode(number))
    try:
        assert_holds(tmp_path / "d", range(2))
    finally:
        writer.abandon()
