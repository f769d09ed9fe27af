"""MUJOCO_GL names a renderer that is not there: one line, in a process that has not imported MuJoCo."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.eureka.command_line import ROOT, assert_one_line

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="MuJoCo knows other renderers elsewhere")


def run(setting: str, hidden: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A Python program with MUJOCO_GL set, in which no library can be found whose name holds `hidden`."""
    kept = {name: value for name, value in os.environ.items() if name != "PYOPENGL_PLATFORM"}
    path = os.pathsep.join([str(ROOT / "tests" / "data" / "hidden_library"), str(ROOT)])
    more = {"MUJOCO_GL": setting, "HIDDEN_LIBRARY": hidden, "PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, *words], env=kept | more, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )


@pytest.mark.parametrize(
    ("setting", "hidden", "words"),
    [
        ("osmesa", "libOSMesa", ("MUJOCO_GL=osmesa", "libOSMesa", "apt-get install libosmesa6", "unset MUJOCO_GL")),
        ("egl", "libEGL", ("MUJOCO_GL=egl", "libEGL", "apt-get install libegl1", "unset MUJOCO_GL")),
        ("osmessa", "nothing", ("MUJOCO_GL is 'osmessa'", "egl, glfw", "unset it", "Did you mean 'osmesa'?")),
    ],
)
def test_a_renderer_that_is_missing_is_one_line(setting, hidden, words):
    done = run(setting, hidden, "-m", "eureka.cli", "tasks")
    assert done.stdout == ""
    assert_one_line(done.returncode, done.stderr, *words)


def test_without_glfw_only_pictures_are_missing():
    """MuJoCo passes over a GLFW that is not there: a training needs none. The renderer says the rest when it is asked."""
    code = "from tasks.graphics import check_mujoco_gl; check_mujoco_gl(); import mujoco; print(hasattr(mujoco, 'GLContext'))"
    done = run("glfw", "libglfw", "-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")


def test_a_worker_says_the_same(tmp_path):
    """Its machine may have other libraries than that of the search."""
    done = run("osmesa", "libOSMesa", "-m", "rl.worker", str(tmp_path))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("MUJOCO_GL=osmesa needs libOSMesa")
