"""`eureka dataset`: what it prints, and one line for whatever it cannot read."""

from __future__ import annotations

import json

import numpy as np
import pytest

from distill.dataset.layout import ACTION
from distill.dataset.writer import DatasetWriter
from tests.distill.datasets import SPEC, assert_holds, episode, length, write
from tests.eureka.command_line import assert_one_line


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write(tmp_path_factory.mktemp("cli") / "d", range(5))


def test_info(eureka, root):
    code, out, err = eureka("dataset", "info", root)
    frames = sum(map(length, range(5)))
    assert (code, err) == (0, "")
    assert f"5 episodes, {frames} frames" in out and "'slider' at 20 Hz" in out
    assert "from expert 0: 3 episodes, fitness 0 to 1, mean 0.5" in out
    assert "3 instructions:" in out and "stay" in out and "waiting" not in out


def test_info_as_json(eureka, root):
    code, out, _ = eureka("dataset", "info", root, "--json")
    found = json.loads(out)
    stays = [number for number in range(5) if number % 2]
    assert code == 0
    assert found["instructions"]["stay"] == {"episodes": len(stays), "frames": sum(map(length, stays))}
    assert found["sources"]["expert 1"] == {"episodes": 2, "fitness": {"min": 0.25, "mean": 0.5, "max": 0.75}}
    whole = np.concatenate([episode(number).columns[ACTION] for number in range(5)]).astype(np.float64)
    assert found["statistics"][ACTION]["std"] == pytest.approx(whole.std(axis=0).tolist())
    assert found["statistics"][ACTION]["q99"] == pytest.approx(np.quantile(whole, 0.99, axis=0).tolist())


def test_an_interrupted_dataset_is_finished(eureka, tmp_path):
    write(tmp_path / "d", range(2))
    writer = DatasetWriter.resume(tmp_path / "d")
    writer.add_episode(episode(2))
    writer.abandon()
    code, out, _ = eureka("dataset", "info", tmp_path / "d")
    assert code == 0 and "1 finished episodes are not in it yet" in out and "eureka dataset finish" in out
    code, out, _ = eureka("dataset", "finish", tmp_path / "d")
    assert code == 0 and "3 episodes, 1 of them were waiting" in out
    assert_holds(tmp_path / "d", range(3))
    assert DatasetWriter.resume(tmp_path / "d").spec == SPEC


def test_export(eureka, root, tmp_path):
    code, out, _ = eureka("dataset", "export-gr00t", root, tmp_path / "out")
    assert code == 0 and "5 episodes" in out and "no videos" in out
    assert json.loads((tmp_path / "out/meta/modality.json").read_text())["action"] == {"body": {"start": 0, "end": 2}}


@pytest.mark.parametrize(
    ("words", "hints"),
    [
        (["dataset", "info", "nowhere"], ["nowhere does not exist", "LeRobotDataset"]),
        (["dataset", "info", "."], ["holds no dataset"]),
        (["dataset", "finish", "."], ["holds no dataset"]),
        (["dataset", "export-gr00t", ".", "out"], ["holds no dataset"]),
        (["dataset", "info"], ["DIR", "missing"]),
        (["dataset", "info", ".", "--jsn"], ["--jsn"]),
        (["dataset", "inof", "."], ["info, finish, export-gr00t"]),
        (["dataset"], ["info, finish, export-gr00t"]),
    ],
)
def test_bad_input(eureka, words, hints):
    code, _, err = eureka(*words)
    assert_one_line(code, err, *hints)


def test_a_damaged_dataset(eureka, tmp_path):
    root = write(tmp_path / "d", range(2))
    path = root / "data/chunk-000/file-000.parquet"
    path.write_bytes(path.read_bytes()[:-50])
    code, _, err = eureka("dataset", "info", root)
    assert_one_line(code, err, "file-000.parquet", "damaged")
