"""A writer that is killed: at every single step on the disk, by a real kill -9, and by a full disk."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest

from distill.dataset import writer as module
from distill.dataset.layout import ACTION
from distill.dataset.reader import EpisodeDataset
from distill.dataset.writer import DatasetWriter, waiting_episodes
from tasks.errors import UserError
from tests.distill.datasets import SPEC, assert_holds, episode, length, write

COUNT = 3
SIZES = {"file_size_mb": 0.01}
"""Two episodes fit into a file, so that writers seal while they write."""


@pytest.fixture
def tmp_path():
    """In memory where that is possible: a sweep asks for thousands of fsyncs."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as place:
        yield Path(place)


class Killed(BaseException):
    """Stands for a kill: nothing that handles errors may handle it."""


class Saboteur:
    """Counts the steps that a writer takes on the disk and ends it before step `last`, whole files half written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, last: int, error: type[BaseException] = Killed) -> None:
        self.steps, self.last, self.error = 0, last, error
        for owner, name in ((module, "write_atomic"), (module, "write_json_atomic"), (Path, "unlink"), (Path, "rmdir"),
                            (Path, "mkdir")):  # fmt: skip
            monkeypatch.setattr(owner, name, self._counted(getattr(owner, name)))

    def _counted(self, step):
        def counted(path, *arguments, **options):
            self.steps += 1
            if self.steps == self.last:
                if step.__name__.startswith("write") and self.error is Killed:
                    path.with_name(f".{path.name}.1.part").write_bytes(b"half a fi")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) if self.error is OSError else self.error()
            return step(path, *arguments, **options)

        return counted


def add_until_killed(root: Path, count: int = COUNT) -> int:
    """Episodes that were reported as added, those before this start included."""
    added = 0
    with DatasetWriter(root, SPEC, **SIZES) as writer:
        added = writer.num_episodes
        try:
            for number in range(added, count):
                writer.add_episode(episode(number))
                added += 1
        except Killed:
            writer.abandon()
            return added
        with contextlib.suppress(Killed):
            writer.close()
    return added


def assert_same_dataset(root: Path, undisturbed: Path) -> None:
    assert_holds(root, range(COUNT))
    ours, theirs = (json.loads((r / "meta/info.json").read_text()) for r in (root, undisturbed))
    assert ours == theirs
    ours, theirs = (json.loads((r / "meta/stats.json").read_text())[ACTION] for r in (root, undisturbed))
    for key, value in theirs.items():
        assert np.allclose(ours[key], value, rtol=1e-12), key
    assert not (root / ".open").exists()
    assert not list(root.glob("**/*.part"))


def test_killed_before_every_step(tmp_path):
    """Whatever was reported as added is there when the writer comes back, bit for bit, and it ends as an undisturbed one."""
    undisturbed = write(tmp_path / "undisturbed", range(COUNT), **SIZES)
    assert len(list(undisturbed.glob("data/*/*.parquet"))) >= 2
    seen, last = set(), 0
    while True:
        last += 1
        root = tmp_path / str(last)
        with pytest.MonkeyPatch.context() as patch:
            saboteur = Saboteur(patch, last)
            try:
                added = add_until_killed(root)
            except Killed:
                added = 0
        if saboteur.steps < last:
            break
        if (root / "meta/info.json").exists() and json.loads((root / "meta/info.json").read_text())["total_episodes"]:
            counted = EpisodeDataset(root)  # what was sealed can be read at any time
            assert len(counted.frames.state) == counted.num_frames
        with DatasetWriter(root, SPEC, **SIZES) as writer:
            there = writer.num_episodes
            assert added <= there <= min(added + 1, COUNT)
            seen.add(there)
            add_all(writer)
        assert_same_dataset(root, undisturbed)
    assert seen == set(range(COUNT + 1))  # the kills were everywhere
    assert last > 25


def test_a_kill_while_recovering(tmp_path):
    """A writer was killed between its data file and info.json; the next one is killed at each of its steps."""
    last = 0
    while True:
        last += 1
        root = tmp_path / str(last)
        with pytest.MonkeyPatch.context() as patch:
            Saboteur(patch, 16)
            add_until_killed(root)
        assert (root / "data/chunk-000/file-000.parquet").exists() and waiting_episodes(root) == 2
        with pytest.MonkeyPatch.context() as patch:
            saboteur = Saboteur(patch, last)
            with contextlib.suppress(Killed):
                DatasetWriter.resume(root).close()
        with DatasetWriter(root, SPEC, **SIZES) as writer:
            assert writer.num_episodes == 2
            add_all(writer)
        assert_holds(root, range(COUNT))
        if saboteur.steps < last:
            break
    assert last > 8


def test_a_real_kill(tmp_path):
    """kill -9 in the middle of the work, several times; every episode that was reported is there."""
    root, there, kills = tmp_path / "d", 0, 0
    while there < 12:
        reports, report = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                with DatasetWriter(root, SPEC, **SIZES) as writer:
                    while writer.num_episodes < 12:
                        writer.add_episode(episode(writer.num_episodes))
                        os.write(report, b"x")
                os.write(report, b".")
                signal.pause()
            finally:
                os._exit(1)
        os.close(report)
        told = b""
        while len(told) < 3 + kills and not told.endswith(b"."):
            assert select.select([reports], [], [], 120)[0], "the writer does not report"
            told += os.read(reports, 1)
        os.kill(child, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
        os.close(reports)
        kills += 1
        writer = DatasetWriter.resume(root)
        assert writer.num_episodes >= there + told.count(b"x")
        there = writer.num_episodes
        writer.abandon()
    with DatasetWriter.resume(root):
        pass
    assert kills >= 2
    assert_holds(root, range(12))


@pytest.mark.parametrize("last", [7, 11, 15, 19, 22])
def test_a_full_disk(tmp_path, last):
    """One line; what was added is safe, and the same writer goes on when there is room again."""
    root, added = tmp_path / "d", 0
    with pytest.MonkeyPatch.context() as patch:
        saboteur = Saboteur(patch, last, OSError)
        writer = DatasetWriter(root, SPEC, **SIZES)
        with pytest.raises(UserError, match=r"cannot write .*No space left on device; episodes that were finished"):
            add_all(writer)
    added = writer.num_episodes
    assert saboteur.steps == last and added >= 1
    assert [origin.world for origin in writer.origins] == [episode(number).origin.world for number in range(added)]
    add_all(writer)
    writer.close()
    assert_holds(root, range(COUNT))
    statistics = json.loads((root / "meta/stats.json").read_text())
    assert statistics[ACTION]["count"] == [sum(map(length, range(COUNT)))]  # nothing was counted twice


def add_all(writer: DatasetWriter) -> None:
    for number in range(writer.num_episodes, COUNT):
        writer.add_episode(episode(number))


def test_files_in_the_way_of_recovery(tmp_path):
    """A waiting episode that is damaged or missing is said, not passed over."""
    root = tmp_path / "d"
    writer = DatasetWriter(root, SPEC)
    for number in range(3):
        writer.add_episode(episode(number))
    writer.abandon()
    files = sorted((root / ".open").iterdir())
    whole = files[1].read_bytes()
    files[1].write_bytes(whole[:-20])
    with pytest.raises(UserError, match=r"episode_000001\.parquet: damaged"):
        DatasetWriter(root, SPEC)
    files[1].unlink()
    with pytest.raises(UserError, match=r"episode_000002\.parquet: an episode before it is missing"):
        DatasetWriter(root, SPEC)
    files[1].write_bytes(whole)
    DatasetWriter(root, SPEC).close()
    assert_holds(root, range(3))
