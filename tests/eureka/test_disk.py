"""Disks that are full, read-only, locked or another machine's: the search waits, refuses, or says so."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from eureka import disk, search_config
from eureka.archive import Archive
from eureka.disk import Patience, check_writable, file_system, hindrance, network_line
from eureka.executors.local import LocalExecutor
from eureka.search import run_search
from tasks.errors import UserError
from tests.eureka.command_line import assert_one_line
from tests.eureka.scripted import SLIDER, ScriptedDesigner, slider_config
from tests.eureka.small_disks import mounted, read_only
from tests.eureka.sweeping import Case, Driver, whole


class SmallDisk(Case):
    """A search whose folder is on a disk of its own; its log is not."""

    def __init__(self, driver: Driver, name: str, place: Path) -> None:
        super().__init__(driver, name)
        self.folder = place / "run"

    def emptied_when_it_waits(self, filler: Path) -> threading.Thread:
        """Takes the filler away after the search has said that it waits, and has tried in vain for a while."""

        def watch() -> None:
            deadline = time.monotonic() + 300
            while not self.logged("said") or not any("is full" in line for line in self.logged("said")):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            self.stood_still = self.log.read_text()
            time.sleep(0.4)
            self.stood_still = self.stood_still == self.log.read_text()
            filler.unlink()

        thread = threading.Thread(target=watch)
        thread.start()
        return thread


@pytest.mark.parametrize(
    ("step", "what"),
    [("asks stored", "search.db"), ("after a reply's insert", "search.db"), ("between row and settling", "search.db"),
     ("after settling", "report.html"), ("before the gate", "candidates/")],
)  # fmt: skip
def test_a_full_disk_pauses_a_search_until_there_is_room(driver, undisturbed, tmp_path, step, what):
    """One line says what is full and how much is free; then everything is as if there had been room."""
    with mounted(tmp_path / "disk", 6) as place:
        case = SmallDisk(driver, f"full {step}", place)
        watcher = case.emptied_when_it_waits(place / "filler")
        assert case.run(step=step, fill=str(place)) == 0, (driver.place / "driver.log").read_text()[-2000:]
        watcher.join()
        said = [line for line in case.logged("said") if "waits" in line or "waiting" in line]
        assert what in said[0] and "the disk is full" in said[0] and "MB free of 6 MB" in said[0]
        assert "goes on" in said[-1]
        assert case.stood_still, "nothing is paid for and nothing trained while a search waits"
        assert whole(case.folder) == undisturbed
        assert len(case.logged("paid")) == 6 and len(case.logged("started")) == 7


def test_ctrl_c_ends_a_search_that_waits_for_room(driver, undisturbed, tmp_path):
    """At once and in order, though not even the stop can be written down; later it resumes to the same end."""
    with mounted(tmp_path / "disk", 6) as place:
        case = SmallDisk(driver, "full and interrupted", place)
        status = case.run(
            step="between row and settling", fill=str(place), once="is full", after_s=0.3, signal=signal.SIGINT
        )
        assert status == 130
        assert any("the disk is full" in line for line in case.logged("said"))
        assert "could not be told that the search stopped" in case.logged("said")[-1]
        (place / "filler").unlink()
        assert case.finish() == undisturbed


def test_a_refused_write_is_tried_again_and_leaves_nothing_behind(tmp_path):
    """Full in the middle of a transaction: it is rolled back, repeated, and done once."""
    said: list[str] = []
    archive = Archive(tmp_path / "search.db", patience=Patience(tmp_path, said.append, poll_s=0.01))
    refusals = iter([sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR | (3 << 8), sqlite3.SQLITE_BUSY])

    def write(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO events (time_s, kind, text) VALUES (0, 'a', 'b')")
        code = next(refusals, None)
        if code is not None:
            error = sqlite3.OperationalError("refused")
            error.sqlite_errorcode = code
            raise error

    archive._db.write(write)
    assert [row["text"] for row in archive.events()] == ["b"]
    assert len(said) == 2 and "search.db" in said[0] and "waiting" in said[1]
    archive.close()


def test_an_error_that_does_not_pass_is_not_waited_for(tmp_path):
    patience = Patience(tmp_path, lambda line: None, poll_s=0.01)
    for error in (OSError(errno.EACCES, "no"), sqlite3.IntegrityError("twice"), UserError("bad")):

        def write(error: Exception = error) -> None:
            raise error

        with pytest.raises(type(error)):
            patience.until_done("x", write)
    patience.over = True
    with pytest.raises(OSError, match="full"):
        patience.until_done("x", lambda: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))


def test_what_passes_is_known_by_its_number():
    assert hindrance(OSError(errno.ENOSPC, "")) and hindrance(OSError(errno.EDQUOT, ""))
    assert hindrance(OSError(errno.EROFS, "")) is None
    copying = shutil.Error([("a", "b", f"[Errno 28] {os.strerror(errno.ENOSPC)}")])
    assert hindrance(copying) == "the disk is full"
    assert hindrance(shutil.Error([("a", "b", os.strerror(errno.EACCES))])) is None


def test_another_programs_lock_is_waited_for(tmp_path, monkeypatch):
    """A backup holds the database for a while: the search goes on afterwards."""
    said: list[str] = []
    archive = Archive(tmp_path / "search.db", patience=Patience(tmp_path, said.append, poll_s=0.01))
    archive._db.execute("PRAGMA busy_timeout=10")
    other = sqlite3.connect(tmp_path / "search.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    def release(line: str) -> None:
        said.append(line)
        if other.in_transaction:
            other.execute("ROLLBACK")

    archive._db.patience = Patience(tmp_path, release, poll_s=0.01)
    archive.set_meta("a", 1)
    assert archive.meta("a") == 1 and "locked" in said[0]
    other.close()
    archive.close()


# -- read-only


def test_a_read_only_folder_is_refused_before_anything_is_paid_for(eureka, tmp_path, monkeypatch):
    """At the start and at a resume: one line, and nobody was asked or trained."""
    asked: list[str] = []
    monkeypatch.setattr("eureka.designers.evolution.EvolutionDesigner.answer", lambda *a: asked.append("asked"))
    monkeypatch.setattr(LocalExecutor, "submit", lambda *a: asked.append("trained"))
    with mounted(tmp_path / "disk", 4) as place:
        search_config.start_folder(slider_config(), place / "begun")
        before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
        with read_only(place):
            code, _, err = eureka("search", SLIDER, "--designer", "evolution", "--out", place / "new")
            assert_one_line(code, err, "cannot write", "Read-only")
            code, _, err = eureka("search", "--resume", place / "begun")
            assert_one_line(code, err, "cannot write", "Read-only", "nothing was started")
        assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before
    assert asked == []


def test_a_folder_that_takes_no_files_is_refused(tmp_path, monkeypatch):
    """As root a folder can always be written, so the refusal is made here. Its candidates' folder counts too."""
    folder = search_config.start_folder(slider_config(), tmp_path / "begun")
    (folder / "candidates").mkdir()
    real = Path.touch

    def touch(self: Path, *rest: Any) -> None:
        if self.parent.name == "candidates":
            raise PermissionError(errno.EACCES, "Permission denied")
        real(self, *rest)

    monkeypatch.setattr(Path, "touch", touch)
    designer = ScriptedDesigner()
    with pytest.raises(UserError, match=r"cannot write to .*candidates: Permission denied; nothing was started"):
        run_search(folder, slider_config(), designer, LocalExecutor(1, 1))
    assert designer.asked == [] and not (folder / "search.db").exists()
    monkeypatch.setattr(Path, "touch", real)
    check_writable(folder)
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


# -- file systems


def test_a_network_file_system_is_said(tmp_path, monkeypatch):
    """Found by the longest mount point, and the latest of equal ones; blanks are written as in fstab."""
    mounts = tmp_path / "mountinfo"
    place = tmp_path / "on a share" / "runs"
    place.mkdir(parents=True)
    share = str(place.parent).replace(" ", "\\040")
    lines = [
        "1 0 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw",
        f"2 1 0:40 / {share} rw - ext4 /dev/sdb rw",
        f"3 1 0:41 / {share} rw master:2 - nfs4 server:/runs rw,vers=4.2",
    ]
    mounts.write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(disk, "_MOUNTS", mounts)
    assert file_system(place) == "nfs4" and file_system(tmp_path) == "ext4"
    line = network_line(place)
    assert line is not None and "nfs4" in line and str(place) in line and "\n" not in line
    assert network_line(tmp_path) is None
    for kind, network in (("cifs", True), ("fuse.sshfs", True), ("9p", True), ("overlay", False), ("fuse.ext4", False)):
        mounts.write_text(f"1 0 8:1 / / rw - {kind} x rw\n")
        assert (network_line(place) is not None) is network, kind


def test_the_file_system_here_is_known(tmp_path):
    with mounted(tmp_path / "disk", 1) as place:
        assert file_system(place) == "tmpfs"
