"""What the writer leaves, read with pyarrow and json alone; and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from distill.dataset.episode import Episode, Origin
from distill.dataset.layout import ACTION, DONE, QPOS, STATE, DatasetSpec, Feature, frame_rate
from distill.dataset.reader import EpisodeDataset
from distill.dataset.writer import DatasetWriter
from tasks.errors import UserError
from tests.distill.datasets import FPS, SPEC, assert_holds, episode, length, write

COUNT = 7


def rows(root: Path, folder: str) -> list[dict]:
    return [
        row for path in sorted((root / folder).glob("*/*.parquet")) for row in pq.ParquetFile(path).read().to_pylist()
    ]


def test_every_number_comes_back_bit_for_bit(tmp_path):
    assert_holds(write(tmp_path / "one", range(COUNT)), range(COUNT))
    assert_holds(write(tmp_path / "many", range(COUNT), file_size_mb=0.007, chunks_size=2), range(COUNT))


def test_frames_and_rows_as_pyarrow_reads_them(tmp_path):
    root = write(tmp_path / "d", range(COUNT))
    frames, episodes = rows(root, "data"), rows(root, "meta/episodes")
    place = 0
    for number, row in enumerate(episodes):
        wanted = episode(number)
        assert (row["episode_index"], row["length"]) == (number, length(number))
        assert (row["dataset_from_index"], row["dataset_to_index"]) == (place, place + length(number))
        assert (row["data/chunk_index"], row["data/file_index"]) == (0, 0)
        assert (row["meta/episodes/chunk_index"], row["meta/episodes/file_index"]) == (0, 0)
        assert row["tasks"] == (["stay"] if number % 2 else ["go", "turn"] if length(number) > 1 else ["turn"])
        assert Origin(row["source"], row["seed"], row["world"], row["fitness"]) == wanted.origin
        for step in range(length(number)):
            frame = frames[place + step]
            assert frame[STATE] == wanted.columns[STATE][step].tolist()
            assert frame[QPOS] == wanted.columns[QPOS][step, 0]  # one number: a plain column
            assert frame["timestamp"] == np.float32(step / FPS)
            assert (frame["simulator.seed"], frame["simulator.world"]) == (wanted.origin.seed, wanted.origin.world)
            assert frame[DONE] == (step == length(number) - 1)
        place += length(number)
    assert place == len(frames)
    schema = pq.ParquetFile(root / "data/chunk-000/file-000.parquet").schema_arrow
    assert str(schema.field(ACTION).type).startswith("fixed_size_list<") and "[2]" in str(schema.field(ACTION).type)
    assert str(schema.field(QPOS).type) == "float"


def test_info_is_lerobots(tmp_path):
    root = write(tmp_path / "d", range(COUNT))
    info = json.loads((root / "meta/info.json").read_text())
    features = info.pop("features")
    assert info == {
        "codebase_version": "v3.0",
        "robot_type": "slider",
        "total_episodes": COUNT,
        "total_frames": sum(map(length, range(COUNT))),
        "total_tasks": 3,
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": 20,
        "splits": {"train": "0:7"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": None,
    }
    assert features[ACTION] == {"dtype": "float32", "shape": [2], "names": ["left", "right"]}
    assert features["task_index"] == {"dtype": "int64", "shape": [1], "names": None}
    assert list(features) == pq.ParquetFile(root / "data/chunk-000/file-000.parquet").schema_arrow.names
    assert not (root / ".open").exists()


def test_instructions_are_an_index_of_pandas(tmp_path):
    table = pq.ParquetFile(write(tmp_path / "d", range(COUNT)) / "meta/tasks.parquet").read()
    assert table.to_pydict() == {"task_index": [0, 1, 2], "__index_level_0__": ["turn", "stay", "go"]}
    assert json.loads(table.schema.metadata[b"pandas"])["index_columns"] == ["__index_level_0__"]


def test_statistics_against_numpy(tmp_path):
    """Of each episode against NumPy's own; of all against all frames at once, the quantiles by hand."""
    root = write(tmp_path / "d", range(COUNT), file_size_mb=0.007)
    episodes = rows(root, "meta/episodes")
    lengths = np.array([length(number) for number in range(COUNT)])
    for row in episodes:
        column = episode(row["episode_index"]).columns[ACTION].astype(np.float64)
        assert row["stats/action/q10"] == pytest.approx(np.quantile(column, 0.1, axis=0).tolist())
        assert row["stats/action/std"] == pytest.approx(column.std(axis=0).tolist())
        assert row["stats/next.done/max"] == [True] and row["stats/next.done/mean"] == [1 / row["length"]]
        assert row["stats/episode_index/min"] == [row["episode_index"]]
    whole = np.concatenate([episode(number).columns[ACTION] for number in range(COUNT)]).astype(np.float64)
    stats = json.loads((root / "meta/stats.json").read_text())[ACTION]
    assert stats["mean"] == pytest.approx(whole.mean(axis=0).tolist())
    assert stats["std"] == pytest.approx(whole.std(axis=0).tolist())
    assert (stats["min"], stats["max"], stats["count"]) == (whole.min(0).tolist(), whole.max(0).tolist(), [len(whole)])
    q90 = np.array([row["stats/action/q90"] for row in episodes])
    assert stats["q90"] == pytest.approx(((q90 * lengths[:, None]).sum(0) / lengths.sum()).tolist())


def test_files_end_at_the_limit(tmp_path):
    root = write(tmp_path / "d", range(12), file_size_mb=0.015, chunks_size=2)
    files = sorted((root / "data").glob("*/*.parquet"))
    assert [path.relative_to(root / "data").as_posix() for path in files[:3]] == [
        "chunk-000/file-000.parquet", "chunk-000/file-001.parquet", "chunk-001/file-000.parquet"
    ]  # fmt: skip
    assert all(path.stat().st_size <= 0.015 * 2**20 for path in files)
    assert 3 <= len(files) < 12  # several episodes share one
    places = [(row["data/chunk_index"], row["data/file_index"]) for row in rows(root, "meta/episodes")]
    assert len(set(places)) == len(files) and places == sorted(places)
    for row in rows(root, "meta/episodes"):
        path = root / f"data/chunk-{row['data/chunk_index']:03d}/file-{row['data/file_index']:03d}.parquet"
        assert row["episode_index"] in pq.ParquetFile(path).read(["episode_index"])["episode_index"].to_pylist()


def test_a_closed_dataset_grows(tmp_path):
    root = tmp_path / "d"
    write(root, range(3))
    before = (root / "data/chunk-000/file-000.parquet").read_bytes()
    write(root, range(3, 5))
    with DatasetWriter.resume(root) as writer:
        assert writer.spec == SPEC
        assert [origin.world for origin in writer.origins] == [0, 1, 2, 3, 0]
        writer.add_episode(episode(5))
    assert_holds(root, range(6))
    assert (root / "data/chunk-000/file-000.parquet").read_bytes() == before
    assert_holds(write(tmp_path / "at once", range(6)), range(6))
    apart, at_once = (json.loads((r / "meta/stats.json").read_text()) for r in (root, tmp_path / "at once"))
    for name, entry in at_once.items():
        for key, value in entry.items():
            assert apart[name][key] == pytest.approx(value), (name, key)


def test_subtasks(tmp_path):
    spec = dataclasses.replace(SPEC, subtasks=True)
    with DatasetWriter(tmp_path / "d", spec) as writer:
        writer.add_episode(dataclasses.replace(episode(1), subtasks=["reach"] * 2 + ["grasp"] * 4))
        writer.add_episode(dataclasses.replace(episode(2), subtasks="reach"))
    with DatasetWriter(tmp_path / "d", spec) as writer:
        writer.add_episode(dataclasses.replace(episode(3), subtasks="lift"))
    dataset = EpisodeDataset(tmp_path / "d")
    assert dataset.subtasks == ("reach", "grasp", "lift")
    words = [dataset.subtasks[s] for s in dataset.episode(0)["subtask_index"][:, 0]]
    assert words == ["reach"] * 2 + ["grasp"] * 4
    assert [dataset.subtasks[s] for s in dataset.episode(2)["subtask_index"][:, 0]] == ["lift"] * length(3)


def changed(**columns: object) -> Episode:
    """Episode 4 (3 frames) with columns replaced; None takes one out."""
    given = {**episode(4).columns, **{name.replace("__", "."): column for name, column in columns.items()}}
    return dataclasses.replace(episode(4), columns={n: c for n, c in given.items() if c is not None})


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (changed(action=None), ["'action' is missing"]),
        (changed(acton=np.zeros((3, 2), np.float32)), ["no feature 'acton'", "Did you mean 'action'?"]),
        (changed(action=np.zeros((3, 2))), ["'action' is float64 (3, 2)", "float32 (3, 2)"]),
        (changed(action=np.zeros((3, 3), np.float32)), ["(3, 3)", "expected float32 (3, 2)"]),
        (changed(action=np.zeros((2, 2), np.float32)), ["(2, 2)", "expected float32 (3, 2)"]),
        (changed(action=np.array([[0, 0], [0, np.nan], [np.inf, 0]], np.float32)), ["not finite in 2 frames, first 1"]),
        (Episode({n: c[:0] for n, c in episode(4).columns.items()}, "x", Origin("", 0, 0, 0.0)), ["(0, 3)"]),
        (dataclasses.replace(episode(4), tasks=["go"] * 2), ["task in words for each of its 3 frames"]),
        (dataclasses.replace(episode(4), tasks=" "), ["task in words"]),
        (dataclasses.replace(episode(4), origin=Origin("", 0, 0, math.nan)), ["fitness is nan"]),
    ],
)
def test_episodes_that_are_refused(tmp_path, bad, words):
    """Refused in one line, and the dataset goes on as if it had not come."""
    assert length(4) == 3
    with DatasetWriter(tmp_path / "d", SPEC) as writer:
        writer.add_episode(episode(0))
        with pytest.raises(UserError) as caught:
            writer.add_episode(bad)
        writer.add_episode(episode(1))
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value), caught.value
    assert_holds(tmp_path / "d", [0, 1])


def spec(**replaced: object) -> DatasetSpec:
    return dataclasses.replace(SPEC, **replaced)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (lambda: spec(robot_type="ant"), ["of 'slider' at 20 Hz, not of 'ant' at 20 Hz"]),
        (lambda: spec(fps=50), ["not of 'slider' at 50 Hz"]),
        (lambda: spec(features={**SPEC.features, STATE: Feature("float32", (4,))}), ["float32 [3], not float32 [4]"]),
        (lambda: spec(features={n: SPEC.features[n] for n in (STATE, ACTION, QPOS)}), ["it has 'next.done' besides"]),
        (lambda: spec(subtasks=True), ["has no 'subtask_index'"]),
        (lambda: spec(features={ACTION: SPEC.features[ACTION]}), ["no feature 'observation.state'"]),
        (lambda: spec(features={**SPEC.features, "task_index": Feature("int64", (1,))}), ["named 'task_index'"]),
        (lambda: spec(features={**SPEC.features, "a/b": Feature("int64", (1,))}), ["named 'a/b'"]),
        (lambda: spec(features={**SPEC.features, "a": Feature("int8", (1,))}), ["int8 (1,)"]),
        (lambda: spec(fps=0.0), ["fps 0.0"]),
    ],
)
def test_another_spec_is_refused(tmp_path, other, words):
    write(tmp_path / "d", [0])
    with pytest.raises(UserError) as caught:
        DatasetWriter(tmp_path / "d", other())
    assert all(word in str(caught.value) for word in words), caught.value
    assert not (tmp_path / "d/.open").exists()  # nothing was touched, and no lock is left
    assert_holds(write(tmp_path / "d", [1]), [0, 1])


def test_a_dataset_that_another_program_went_on_with(tmp_path):
    """Rows that do not say where their episodes come from cannot be gone on with."""
    path = write(tmp_path / "d", [0, 1]) / "meta/episodes/chunk-000/file-000.parquet"
    pq.write_table(pq.ParquetFile(path).read().drop_columns(["source"]), path)
    with pytest.raises(UserError, match="another program has added episodes"):
        DatasetWriter(tmp_path / "d", SPEC)


def test_places_that_are_refused(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").write_text("x")
    with pytest.raises(UserError, match=r"full holds 'thesis\.tex' and no dataset"):
        DatasetWriter(tmp_path / "full", SPEC)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot write"):
        DatasetWriter(tmp_path / "file", SPEC)
    with DatasetWriter(tmp_path / "d", SPEC), pytest.raises(UserError, match="another writer is at work"):
        DatasetWriter(tmp_path / "d", SPEC)
    with pytest.raises(UserError, match="file_size_mb is 0"):
        DatasetWriter(tmp_path / "e", SPEC, file_size_mb=0)


def test_frame_rates():
    assert [frame_rate(s) for s in (0.02, 1 / 60, 0.05)] == [50, 60, 20]
    assert all(isinstance(frame_rate(s), int) for s in (0.02, 1 / 60, 0.05))
    assert frame_rate(0.03) == pytest.approx(100 / 3)
