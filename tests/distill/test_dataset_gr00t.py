"""The export for GR00T, read as its loader reads it (gr00t/data/dataset.py): by templates, slices and line files."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from distill.dataset.gr00t import export_gr00t
from distill.dataset.layout import ACTION, QPOS, STATE
from distill.dataset.reader import EpisodeDataset
from tasks.errors import UserError
from tests.distill.datasets import episode, length, write

COUNT = 5


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return EpisodeDataset(write(tmp_path_factory.mktemp("gr00t") / "d", range(COUNT), file_size_mb=0.01))


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_as_the_loader_reads_it(dataset, tmp_path):
    done = export_gr00t(dataset, tmp_path / "out", state={"arm": (0, 2), "hand": (2, 3)})
    out = tmp_path / "out"
    info, modality = (json.loads((out / f"meta/{name}.json").read_text()) for name in ("info", "modality"))
    stats = json.loads((out / "meta/stats.json").read_text())
    tasks = {row["task_index"]: row["task"] for row in lines(out / "meta/tasks.jsonl")}
    assert info["codebase_version"] == "v2.1" and info["video_path"] is None and modality["video"] == {}
    assert (info["total_episodes"], info["total_chunks"], info["total_videos"]) == (COUNT, 1, 0)
    size = 0
    for row in lines(out / "meta/episodes.jsonl"):
        number = row["episode_index"]
        chunk = number // info["chunks_size"]
        path = out / info["data_path"].format(episode_chunk=chunk, episode_index=number)
        size += path.stat().st_size
        frames = pq.ParquetFile(path).read().to_pydict()
        wanted = episode(number)
        assert row["length"] == len(frames["index"]) == length(number)
        for modality_name, key, column in (
            ("state", "arm", STATE),
            ("state", "hand", STATE),
            ("action", "body", ACTION),
        ):
            part = modality[modality_name][key]
            found = np.stack([np.asarray(values, np.float32) for values in frames[column]])
            assert found.ndim == 2
            assert np.array_equal(found[:, part["start"] : part["end"]],
                                  wanted.columns[column][:, part["start"] : part["end"]])  # fmt: skip
        words = [wanted.tasks] * length(number) if isinstance(wanted.tasks, str) else list(wanted.tasks)
        for annotation in ("human.task_description", "human.action.task_description"):
            key = modality["annotation"][annotation]["original_key"]
            assert [tasks[index] for index in frames[key]] == words
        assert set(row["tasks"]) == set(words) and QPOS not in frames
    for modality_name, column in (("state", STATE), ("action", ACTION)):
        whole = np.concatenate([episode(number).columns[column] for number in range(COUNT)]).astype(np.float64)
        assert set(stats[column]) == {"mean", "std", "min", "max", "q01", "q99"}  # the loader slices each of them
        assert stats[column]["q99"] == pytest.approx(np.quantile(whole, 0.99, axis=0).tolist())
        assert stats[column]["mean"] == pytest.approx(whole.mean(axis=0).tolist())
        for part in modality[modality_name].values():
            assert all(
                len(values[part["start"] : part["end"]]) == part["end"] - part["start"]
                for values in stats[column].values()
            )
    assert (done.episodes, done.frames, done.bytes) == (COUNT, dataset.num_frames, size)
    of_episodes = lines(out / "meta/episodes_stats.jsonl")
    assert of_episodes[2]["stats"][ACTION]["max"] == episode(2).columns[ACTION].max(axis=0).tolist()
    assert [row["episode_index"] for row in of_episodes] == list(range(COUNT))


def test_what_is_refused(dataset, tmp_path):
    with pytest.raises(UserError, match=r"state slice 'arm' is 1 to 4; expected a part of 0 to 3"):
        export_gr00t(dataset, tmp_path / "out", state={"arm": (1, 4)})
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="there exists already"):
        export_gr00t(dataset, tmp_path / "there")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"cannot write .*; nothing was exported"):
        export_gr00t(dataset, tmp_path / "file" / "out")


def test_a_failure_leaves_nothing(dataset, tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("distill.dataset.gr00t.write_atomic", full)
    with pytest.raises(UserError, match="No space left on device; nothing was exported"):
        export_gr00t(dataset, tmp_path / "out")
    assert not list(tmp_path.iterdir())
