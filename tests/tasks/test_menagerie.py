"""Where robots come from: a local copy, the package's cache, a download; and one line for each thing that goes wrong."""

from __future__ import annotations

import dataclasses
import tarfile
from pathlib import Path

import mujoco_menagerie
import pytest

from eureka.commands.tasks import Tasks
from tasks.errors import UserError
from tasks.robots import menagerie

MODEL = '<mujoco model="toy"><worldbody><body><joint name="hinge"/><geom size="0.1"/></body></worldbody></mujoco>'
ROBOT = "unitree_g1"


def told(robot: str, file: str = "g1.xml") -> str:
    """The line that the user gets."""
    with pytest.raises(UserError) as caught:
        menagerie.robot_spec(robot, file)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def folder_with(path: Path, **files: str) -> Path:
    path.mkdir(parents=True)
    for name, text in files.items():
        (path / f"{name}.xml").write_text(text)
    return path


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A local copy with one robot of two files, of which one is no MJCF."""
    root = tmp_path / "copy"
    folder_with(root / ROBOT, g1=MODEL, broken="<mujoco><worldbdy/></mujoco>")
    monkeypatch.setenv("MENAGERIE_ROOT", str(root))
    monkeypatch.setattr(mujoco_menagerie, "get", pytest.fail)  # nothing is asked of the package's registry
    return root


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """No local copy, an empty cache, and a server that is a folder."""
    monkeypatch.delenv("MENAGERIE_ROOT", raising=False)
    monkeypatch.setenv("MENAGERIE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("MENAGERIE_BASE_URL", (tmp_path / "server").as_uri())
    return tmp_path


@pytest.fixture
def published(cache, monkeypatch):
    """The robot's archive on that server, with the digest that the registry wants."""
    server, tree = cache / "server", folder_with(cache / "tree" / ROBOT, g1=MODEL)
    server.mkdir()
    archive = server / "toy.tar.xz"
    with tarfile.open(archive, "w:xz") as file:
        file.add(tree, ROBOT)
    digest = mujoco_menagerie._cache.sha256_file(archive)
    entry = dataclasses.replace(
        mujoco_menagerie.get(ROBOT), asset=archive.name, sha256=digest, download_size=archive.stat().st_size
    )
    monkeypatch.setattr(mujoco_menagerie, "get", lambda name: entry)
    return archive


def test_a_local_copy_is_used_and_may_hold_robots_of_ones_own(copy):
    spec = menagerie.robot_spec(ROBOT, "g1.xml")
    assert [joint.name for joint in spec.joints] == ["hinge"]
    folder_with(copy / "my_robot", own=MODEL)
    assert menagerie.robot_available("my_robot")
    assert menagerie.robot_spec("my_robot", "own.xml").modelname == "toy"


def test_a_robot_that_the_copy_lacks(copy):
    line = told("anybotics_anymal_c")
    assert "not in MENAGERIE_ROOT=" in line and str(copy) in line and ROBOT in line
    assert menagerie.missing_reason("anybotics_anymal_c") == line
    assert not menagerie.robot_available("anybotics_anymal_c")


def test_an_unknown_robot(cache):
    assert "unknown robot 'unitre_g1'. Did you mean 'unitree_g1'?" in told("unitre_g1")
    assert "mujoco-menagerie names" in told("xyzzy")


def test_an_unknown_robot_in_a_copy(copy):
    assert "unknown robot 'unitre_g1'. Did you mean 'unitree_g1'?" in told("unitre_g1")


def test_a_file_that_is_missing_or_no_model(copy):
    line = told(ROBOT, "g2.xml")
    assert "has no file 'g2.xml'" in line and "broken.xml, g1.xml" in line and "Did you mean 'g1.xml'?" in line
    assert "worldbdy" in told(ROBOT, "broken.xml")


def test_a_copy_that_is_no_folder(copy, monkeypatch):
    monkeypatch.setenv("MENAGERIE_ROOT", str(copy / "nowhere"))
    assert "nowhere is no folder" in told(ROBOT)


def test_a_robot_is_downloaded_once_with_a_bar(published, capfd):
    assert "downloaded (0.0 MiB) on first use" in str(menagerie.missing_reason(ROBOT))
    assert menagerie.robot_spec(ROBOT, "g1.xml").modelname == "toy"
    assert f"downloading {ROBOT}" in capfd.readouterr().err
    assert menagerie.robot_available(ROBOT)
    published.unlink()
    assert menagerie.robot_spec(ROBOT, "g1.xml").modelname == "toy"
    assert capfd.readouterr().err == ""


def test_a_damaged_archive_and_an_archive_that_is_not_there(published):
    published.write_bytes(published.read_bytes()[:-8])
    line = told(ROBOT)
    assert "could not be downloaded" in line and "digest" in line
    published.unlink()
    line = told(ROBOT)
    assert "not found" in line and "check the network, or set MENAGERIE_ROOT to a local copy" in line
    assert not menagerie.robot_available(ROBOT)


def test_no_network_is_one_line(cache, monkeypatch):
    monkeypatch.setenv("MENAGERIE_BASE_URL", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setattr(mujoco_menagerie._cache.time, "sleep", lambda seconds: None)
    line = told(ROBOT)
    assert "could not be downloaded" in line and "check the network" in line


def test_a_cache_that_cannot_be_written(cache, published, monkeypatch):
    (cache / "cache").write_text("a file where the folder should be")
    assert "could not be stored" in told(ROBOT)


def test_listing_the_tasks_downloads_nothing_and_says_why(cache, capsys, monkeypatch):
    monkeypatch.setattr(menagerie, "_download", pytest.fail)
    assert Tasks().run() == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "ant-run" in text and text.count("is not on this machine") >= 2
