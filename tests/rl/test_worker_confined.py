"""A training worker that turned hostile: what it reaches beside its run folder, and that its own work goes on."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rewards.confine import REQUIRE_VARIABLE, WORKER
from rewards.probe import confinement_here
from rl import render
from rl.record import RESULT, write_request
from tests.rl.conftest import SLIDER

ROOT = Path(__file__).parents[2]
MISSING = confinement_here(WORKER).missing if sys.platform == "linux" else {"all": "needs Linux"}
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not on this system: {MISSING}")

# In place of the training: an attack that writes down what it got.
HOSTILE = """
import json, os, signal, socket, subprocess
from pathlib import Path
from rl import worker  # before all that starts threads
import rl.train

def tried(attack):
    try:
        return f"open: {attack()}"
    except BaseException as error:
        return f"shut: {type(error).__name__}: {error}"

def output(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout

def hostile(request, run_dir, on_reward, **_):
    on_reward()  # as a training does before its first step; see test_train
    outside, parent = run_dir.parent / "outside", os.getppid()
    said = {
        "read": tried(lambda: (outside / "secret").read_text()),
        "write": tried(lambda: (outside / "new").write_text("x")),
        "write another run": tried(lambda: (run_dir.parent / "sibling").write_text("x")),
        "change a mode": tried(lambda: (outside / "secret").chmod(0o777)),
        "parent's variables": tried(lambda: Path(f"/proc/{parent}/environ").read_bytes()),
        "connect": tried(lambda: socket.create_connection(("127.0.0.1", int(os.environ["PORT"])), 5)),
        "signal": tried(lambda: os.kill(parent, signal.SIGURG)),
        "hidden beside the task": tried(lambda: (Path(request.task).parent / ".env").read_text()),
        "run": tried(lambda: output("/bin/echo", "ran")),
        "read by a program": tried(lambda: output("/bin/cat", outside / "secret")),
        "signal by a program": tried(lambda: output("/bin/kill", "-URG", str(parent))),
        "own folder": tried(lambda: (run_dir / "own").write_text("x")),
        "task": tried(lambda: len(Path(request.task).read_text()) > 100),
        "beside the task": tried(lambda: (Path(request.task).parent / "mesh").read_text()),
    }
    (run_dir / "said.json").write_text(json.dumps(said))
    os._exit(0)

rl.train.train = hostile
worker.main()
"""
NEEDED = {"own folder": "open: 1", "task": "open: True", "beside the task": "open: shape"}


def start(run_dir: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words, str(run_dir)],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"} | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("canary-7c1f")
    (tmp_path / "task").mkdir()
    shutil.copy(SLIDER, tmp_path / "task" / "slider.py")
    (tmp_path / "task" / "mesh").write_text("shape")
    (tmp_path / "task" / ".env").write_text("KEY=canary-7c1f")
    return tmp_path / "run"


@pytest.mark.parametrize("video", [False, True])
def test_a_hostile_training_reaches_nothing(make_request, run_dir, video):
    request = make_request(task=str(run_dir.parent / "task" / "slider.py"), video=video)
    write_request(request, run_dir)
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = start(run_dir, "-c", HOSTILE, PORT=str(server.getsockname()[1]), **{REQUIRE_VARIABLE: "1"})
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads((run_dir / "said.json").read_text())
    wanted = NEEDED | ({"run": "open: ran\n"} if video else {})
    assert {name: said.pop(name) for name in wanted} == wanted
    assert all(outcome.startswith("shut: ") for outcome in said.values()), said
    assert "canary" not in json.dumps(said)
    assert not (run_dir.parent / "outside" / "new").exists()


def test_a_video_is_made_under_confinement(make_request, graph, run_dir):
    """The renderer and ffmpeg are programs of their own, confined as the worker is."""
    if render.probe_renderer() not in ("egl", "osmesa"):
        pytest.skip("nothing draws here without a display")
    write_request(make_request({"iterations": 1}, video=True, reward_graph=graph), run_dir)
    done = start(run_dir, "-m", "rl.worker", **{REQUIRE_VARIABLE: "1"})
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads((run_dir / RESULT).read_text())
    assert (result["status"], result["video"]) == ("ok", "video.mp4")
    assert (run_dir / "video.mp4").stat().st_size > 1000


def test_worlds_on_warp_are_simulated_under_confinement(make_request, graph, run_dir):
    """It compiles kernels into the home, and loads those that are there."""
    pytest.importorskip("mujoco_warp", reason="needs the extra gpu: pip install 'eureka-skills[gpu]'")
    request = make_request({"iterations": 1}, backend="warp", device="cpu", reward_graph=graph)
    write_request(request, run_dir)
    done = start(run_dir, "-m", "rl.worker", HOME=str(Path.home()), **{REQUIRE_VARIABLE: "1"})
    assert done.returncode == 0, done.stderr
    assert json.loads((run_dir / RESULT).read_text())["status"] == "ok"


def test_a_worker_that_cannot_be_confined_in_full_says_so_where_that_is_demanded(make_request, graph, run_dir):
    write_request(make_request({"iterations": 1}, reward_graph=graph), run_dir)
    done = start(run_dir, "-m", "rl.worker", OPENAI_API_KEY="k", **{REQUIRE_VARIABLE: "1"})
    assert done.returncode == 1
    error = json.loads((run_dir / RESULT).read_text())["error"]
    assert "clean environment (it was started with OPENAI_API_KEY in its environment)" in error["message"]
