"""What travels to another machine and back: a task's files, and the files of a run folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from eureka.executors import bundle as bundling
from eureka.executors.arrivals import Arrivals, BadArrival
from eureka.executors.bundle import bundle
from eureka.executors.ray import _start_files
from eureka.executors.ray_node import Order, run_job
from eureka.executors.scratch import abandoned, scratch_folder
from eureka.executors.travel import code_digest
from rewards.confine import REQUIRE_VARIABLE
from rl.record import METRICS, read_metrics
from tasks.errors import UserError
from tasks.registry import make
from tests.eureka.executor_cases import FAKE, ROOT, SLIDER, job, linux, starts

MODEL = SLIDER.read_text().partition('xml = """')[2].partition('"""')[0]
CUBE = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"


@pytest.fixture
def task_file(tmp_path):
    """A task whose model is a file in a folder beside it, with an include and a mesh; gives a way to change it."""
    folder = tmp_path / "mine"
    (folder / "model" / "shapes").mkdir(parents=True)
    (folder / "model" / "shapes" / "cube.obj").write_text(CUBE)
    (folder / "model" / "light.xml").write_text("<mujoco><visual/></mujoco>")
    (folder / "notes.txt").write_text("not needed")

    def write(mesh: str = "cube.obj", more: str = "", xml: str | None = None) -> str:
        assets = f'<compiler meshdir="shapes"/><asset><mesh name="cube" file="{mesh}"/></asset>'
        model = MODEL.replace("<mujoco>", f'<mujoco><include file="light.xml"/>{assets}')
        model = model.replace("<light", '<geom type="mesh" mesh="cube" pos="0 0 9"/><light')
        (folder / "model" / "slider.xml").write_text(model)
        text = SLIDER.read_text().replace(MODEL, "X")
        value = 'Path(__file__).parent / "model" / "slider.xml"' if xml is None else xml
        text = text.replace('"""X"""', value).replace(
            "import torch\n", f"import torch\nfrom pathlib import Path\n{more}\n", 1
        )
        (folder / "task.py").write_text(text)
        return str(folder / "task.py")

    return write


def test_a_task_file_travels_with_its_model_and_works_elsewhere(task_file, tmp_path):
    """Laid out as it lies here; nothing else goes along."""
    ref = task_file()
    found = bundle(ref + ":Slider")
    assert found is not None
    assert found.ref == "task.py:Slider"
    assert set(found.files) == {"task.py", "model/slider.xml", "model/light.xml", "model/shapes/cube.obj"}
    (tmp_path / "there").mkdir()
    task = make(found.unpack(tmp_path / "there"))
    assert task.name == "slider" and task.xml == tmp_path / "there" / "model" / "slider.xml"
    assert bundle("cartpole-balance") is None
    own = bundle(str(SLIDER))
    assert own is not None and set(own.files) == {"slider.py"}


def test_what_cannot_travel_is_refused_in_one_line(task_file, tmp_path, monkeypatch):
    """A full path, a model's text that names files, data that the task reads beside itself, too much, a missing file."""
    away = tmp_path / "away.obj"
    away.write_text(CUBE)
    xml = "chr(60) + \"mujoco><asset><mesh file='cube.obj'/></asset></mujoco>\""
    with pytest.raises(UserError, match="--executor local") as refused:
        bundle(task_file(mesh=str(away)))
    assert str(away) in str(refused.value) and "\n" not in str(refused.value)
    with pytest.raises(UserError, match=r"it refers to cube\.obj"):
        bundle(_fresh(task_file(xml=xml)))
    with pytest.raises(UserError, match=r"notes\.txt"):
        bundle(_fresh(task_file(more='WORDS = (Path(__file__).parent / "notes.txt").read_text()')))
    with pytest.raises(UserError, match="which is no file"):
        bundle(_fresh(task_file(mesh="missing.obj")))
    monkeypatch.setattr(bundling, "MAX_BYTES", 500)
    with pytest.raises(UserError, match="MiB"):
        bundle(_fresh(task_file()))


def _fresh(ref: str) -> str:
    """The task under a new path: a file is imported once per path."""
    place = Path(ref)
    new = place.with_name(f"task{len(list(place.parent.glob('*.py')))}.py")
    place.rename(new)
    return str(new)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_folder_is_abandoned_when_its_process_has_ended(tmp_path):
    """Not before, and not one that says nothing of its owner."""
    code = (
        "import sys; from pathlib import Path; from eureka.executors.scratch import scratch_folder\n"
        "print(scratch_folder('mine-', Path(sys.argv[1])), flush=True); sys.stdin.read()"
    )
    (tmp_path / "mine-of-nobody").mkdir()
    own = scratch_folder("mine-", tmp_path)
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        assert theirs.stat().st_mode & 0o077 == 0
        assert list(abandoned("mine-", tmp_path)) == []
        other.kill()
    assert list(abandoned("mine-", tmp_path)) == [theirs] and own != theirs


def test_code_has_one_digest():
    """Of 64 hexadecimal digits, the same at every call."""
    assert len(code_digest()) == 64 and code_digest() == code_digest()


def test_a_file_has_its_name_once_it_is_whole(tmp_path):
    """In pieces, empty ones too."""
    arriving = Arrivals(tmp_path, 100)
    arriving.file("model_1.pt", b"ab", False)
    assert not (tmp_path / "model_1.pt").exists()
    arriving.file("model_1.pt", b"cd", True)
    arriving.file("worker.log", b"", True)
    assert (tmp_path / "model_1.pt").read_bytes() == b"abcd" and (tmp_path / "worker.log").read_bytes() == b""
    assert {path.name for path in tmp_path.iterdir()} == {"model_1.pt", "worker.log"}


@pytest.mark.parametrize(
    "name",
    ["../x", "a/b", "/etc/x", "..", ".hidden", "", "a\0b", "a\nb", "x" * 300, "request.json", "worker.json",
     "attempts.json", "progress", METRICS, 7, b"x"],
)  # fmt: skip
def test_a_name_that_will_not_do_is_refused(tmp_path, name):
    """Nothing is written for it."""
    folder = tmp_path / "run"
    folder.mkdir()
    with pytest.raises(BadArrival):
        Arrivals(folder, 100).file(name, b"x", True)
    assert list(tmp_path.rglob("*")) == [folder]


def test_pieces_out_of_turn_too_much_and_no_bytes_are_refused(tmp_path):
    """And links that lie in the way are not followed."""
    arriving = Arrivals(tmp_path, 10)
    arriving.file("a", b"1", False)
    with pytest.raises(BadArrival, match="out of turn"):
        arriving.file("b", b"1", True)
    arriving.file("a", b"2", True)
    with pytest.raises(BadArrival, match="out of turn"):
        arriving.file("a", b"3", True)
    with pytest.raises(BadArrival, match="in place of bytes"):
        arriving.file("c", "text", True)
    with pytest.raises(BadArrival, match="more bytes"):
        arriving.file("c", b"x" * 9, True)
    assert (tmp_path / "a").read_bytes() == b"12"
    outside = tmp_path / "outside"
    outside.write_text("kept")
    (tmp_path / ".d.arriving").symlink_to(outside)
    (tmp_path / METRICS).symlink_to(outside)
    Arrivals(tmp_path, 10).file("d", b"x", True)
    with pytest.raises(OSError, match="symbolic links"):
        Arrivals(tmp_path, 10).metrics(0, b"x")
    assert outside.read_text() == "kept" and (tmp_path / "d").read_bytes() == b"x"


def test_metrics_are_appended_written_anew_and_have_no_gaps(tmp_path):
    """A line is there as soon as it has come."""
    arriving = Arrivals(tmp_path, 1000)
    arriving.metrics(0, b'{"iteration": 1}\n')
    arriving.metrics(17, b'{"iteration": 2}\n')
    arriving.metrics(17, b'{"iteration": 3}\n')
    assert [line["iteration"] for line in read_metrics(tmp_path / METRICS)] == [1, 3]
    arriving.metrics(0, b'{"iteration": 7}\n')
    assert [line["iteration"] for line in read_metrics(tmp_path / METRICS)] == [7]
    for offset in (18, -1, "0", None):
        with pytest.raises(BadArrival):
            arriving.metrics(offset, b"x")


@linux
@pytest.mark.parametrize("demanded", [True, False])
def test_a_node_takes_the_demand_for_a_sandbox_from_the_order_alone(tmp_path, monkeypatch, demanded):
    """Its process may have served a search that made it, or none."""
    if demanded:
        monkeypatch.delenv(REQUIRE_VARIABLE, raising=False)
    else:
        monkeypatch.setenv(REQUIRE_VARIABLE, "1")
    told = job(tmp_path / "run", "environ")
    order = Order(
        request=(told.run_dir / "request.json").read_text(),
        threads=1,
        digest=code_digest(),
        task_ref=None,
        time_limit_s=None,
        no_progress_s=None,
        memory_bytes=None,
        max_bytes=10**6,
        require_sandbox=demanded,
        start={},
        command=FAKE,
    )
    messages = list(run_job(order.plain(), {}))
    assert [message["kind"] for message in messages] == ["started", "file", "file", "ended"]
    assert [message["name"] for message in messages[1:3]] == ["worker.log", "result.json"]
    assert starts(tmp_path / "log")[0]["environ"].get(REQUIRE_VARIABLE) == ("1" if demanded else None)


def test_a_training_goes_on_elsewhere_from_what_the_search_has(task_file, tmp_path):
    """Its checkpoint and metrics are in the node's folder, and the meta names the task as it is there and comes back as it
    is here."""
    path = str(task_file())
    found, told = bundle(path), job(tmp_path / "run", "exit")
    assert found is not None
    request = {**json.loads((told.run_dir / "request.json").read_text()), "task": path}
    for name, text in (("model_000002.pt", "weights"), ("model_000002.json", json.dumps({"task_ref": path}))):
        (told.run_dir / name).write_text(text)
    (told.run_dir / METRICS).write_text('{"iteration": 2}\n')
    code = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); (p / 'seen.txt').write_text((p / 'model_000002.json').read_text())"
    order = Order(
        request=json.dumps(request),
        threads=1,
        digest=code_digest(),
        task_ref=found.ref,
        time_limit_s=None,
        no_progress_s=None,
        memory_bytes=None,
        max_bytes=10**6,
        require_sandbox=False,
        start=_start_files(told.run_dir),
        command=(sys.executable, "-c", code),
    )
    sent = {m["name"]: m["data"] for m in run_job(order.plain(), found.files) if m["kind"] == "file"}
    there = json.loads(sent["seen.txt"])["task_ref"]
    assert there != path and there.endswith(found.ref)
    assert json.loads(sent["model_000002.json"])["task_ref"] == path
    assert sent["model_000002.pt"] == b"weights"
    assert _start_files(tmp_path / "empty") == {}
