"""Videos: the rollout against a closed form, the file against what ffmpeg reads in it, and machines that cannot draw."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import imageio.v3
import numpy as np
import pytest
import torch
from imageio_ffmpeg import read_frames

from rl import render, video
from tasks.errors import UserError
from tests.rl.conftest import SLIDER

ROOT = Path(__file__).parents[2]
PUSH = 0.25  # of 4 N on 1 kg: 1 m/s2


def push_right(observation):
    """A constant force on every world."""
    return torch.full((len(observation), 1), PUSH)


@pytest.fixture(scope="module")
def renderer() -> str:
    """What draws on this machine."""
    found = render.probe_renderer()
    if found is None:
        pytest.skip(render.no_renderer_line())
    return found


@pytest.fixture
def fresh_cache(monkeypatch, tmp_path):
    """No renderer is remembered, and what is found is kept in a folder of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    render._probe.cache_clear()
    yield tmp_path / "cache" / "eureka-skills" / "renderer.json"
    render._probe.cache_clear()


def test_rollout_follows_the_closed_form_of_a_constant_force(slider):
    """Semi-implicit Euler at 25 ms: x_n = x_0 + a h^2 n (n + 1) / 2, two substeps per control step."""
    states, failed = video.rollout(slider, push_right, seconds=1.0, seed=3)
    n = 2 * np.arange(21)
    expected = states[0, 0] + 1.0 * 0.025**2 * n * (n + 1) / 2
    np.testing.assert_allclose(states[:, 0], expected, atol=1e-5)
    assert not failed


def test_rollout_is_deterministic_in_the_seed_and_stops_at_a_failure(slider):
    """Without a length one episode is shown; the state after the fall belongs to the next one and is left out."""
    push = lambda observation: torch.ones(len(observation), 1)  # noqa: E731
    first, failed = video.rollout(slider, push, seed=3)
    again, _ = video.rollout(slider, push, seed=3)
    other, _ = video.rollout(slider, push, seed=4)
    assert failed and len(first) < 40
    assert np.array_equal(first, again) and first[0, 0] != other[0, 0]
    assert (np.diff(first[:, 0]) >= 0).all(), "the mass only moves right; a reset would move it back"
    longer, failed_then = video.rollout(slider, push, seconds=3.0, seed=3)
    assert len(longer) == 61 and not failed_then


def test_a_video_is_what_players_can_play_and_shows_the_motion(slider, renderer, tmp_path):
    """H.264 in yuv420p, real time; the picture of the mass moves to the right as the mass does."""
    out = video.record_video(slider, push_right, tmp_path / "deep" / "video.mp4", seconds=1.0, seed=3)
    assert out == tmp_path / "deep" / "video.mp4"
    assert [path.name for path in out.parent.iterdir()] == ["video.mp4"], "nothing else may be left"
    frames = read_frames(out)
    facts = next(frames)
    assert isinstance(facts, dict)
    assert (facts["codec"], facts["size"], facts["fps"]) == ("h264", (320, 240), 20.0)
    assert facts["pix_fmt"].startswith("yuv420p")
    assert facts["duration"] == pytest.approx(1.05, abs=0.06)
    pictures = [np.frombuffer(frame, np.uint8).reshape(240, 320, 3) for frame in frames]
    assert len(pictures) == 21
    assert _column_of_the_mass(pictures[-1]) > _column_of_the_mass(pictures[0]) + 20


def _column_of_the_mass(picture: np.ndarray) -> float:
    """Mean column of what is drawn: the mass is all that is not black."""
    seen = picture.astype(int).sum(axis=-1) > 60
    assert 50 < seen.sum() < 0.5 * seen.size, "the mass is out of sight"
    return float(np.nonzero(seen)[1].mean())


def test_pictures_can_be_written_one_by_one(slider, renderer, tmp_path):
    """Evenly spread PNG files of the asked size."""
    paths = video.record_frames(slider, push_right, tmp_path, count=3, seconds=0.5, width=64, height=48)
    assert [path.name for path in paths] == ["frame_0000.png", "frame_0001.png", "frame_0002.png"]
    pictures = [imageio.v3.imread(path) for path in paths]
    assert all(picture.shape == (48, 64, 3) for picture in pictures)
    assert not np.array_equal(pictures[0], pictures[2])


def test_frame_rate_is_a_whole_fraction_of_the_control_rate(slider):
    """50 Hz control is filmed at 25 frames/s, 20 Hz at 20, both in real time; a failure's last frame is held."""
    slider.control_dt_s = 0.025
    reel = video.film(slider, push_right, seconds=1.0, seed=0, width=64, height=48, fps=25.0)
    assert (reel.fps, len(reel.qpos), reel.hold) == (20.0, 21, 0)
    fallen = video.film(slider, lambda o: torch.ones(len(o), 1), seconds=None, seed=0, width=64, height=48, fps=25.0)
    assert fallen.hold == 20


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"width": 321}, "even"),
        ({"fps": 0.0}, "fps"),
        ({"seconds": -1.0}, "long"),
        ({"seconds": float("nan")}, "long"),
    ],
)
def test_numbers_that_cannot_work_are_refused(slider, monkeypatch, tmp_path, options, word):
    """One line, and no file."""
    monkeypatch.setattr(video, "probe_renderer", lambda: "osmesa")
    with pytest.raises(UserError, match=word):
        video.record_video(slider, push_right, tmp_path / "video.mp4", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("setting", "words"),
    [("", ("libosmesa6", "libegl1")), ("off", ("MUJOCO_GL=off", "unset")), ("egl", ("MUJOCO_GL=egl", "libegl1"))],
)
def test_without_a_renderer_there_is_one_line_and_no_failure(slider, monkeypatch, tmp_path, setting, words):
    """The line names the package, or the setting that is in the way."""
    monkeypatch.setenv("MUJOCO_GL", setting)
    monkeypatch.setattr(video, "probe_renderer", lambda: None)
    said: list[str] = []
    assert video.record_video(slider, push_right, tmp_path / "video.mp4", say=said.append) is None
    assert video.record_frames(slider, push_right, tmp_path / "frames", say=said.append) == []
    assert len(said) == 2 and all("\n" not in line for line in said)
    assert all(word in said[0] for word in words)
    assert not list(tmp_path.iterdir())


def test_a_renderer_that_breaks_leaves_no_file(slider, monkeypatch, tmp_path, fresh_cache):
    """What worked when it was probed may be gone later: one line, None, and nothing half written."""
    monkeypatch.setattr(video, "probe_renderer", lambda: "nonsense")
    said: list[str] = []
    assert video.record_video(slider, push_right, tmp_path / "video.mp4", seconds=0.2, say=said.append) is None
    assert len(said) == 1 and "nonsense" in said[0]
    assert not list(tmp_path.glob("*.mp4")) and not list(tmp_path.glob(".*"))


def test_probing_really_draws():
    """A renderer that does not exist is not taken for one, and the reason is one line."""
    problem = render.try_renderer("nonsense")
    assert problem is not None and "\n" not in problem


def test_a_child_that_dies_or_hangs_is_an_answer_too():
    """Drivers crash and hang; the parent lives, and waits no longer than it was told."""
    with pytest.raises(render.RenderError, match="died"):
        render.in_child(os.abort, (), 30.0)
    began = time.monotonic()
    with pytest.raises(render.RenderError, match="within 1 s"):
        render.in_child(time.sleep, (60,), 1.0)
    assert time.monotonic() - began < 45


def test_the_users_choice_is_the_only_one_tried(monkeypatch, fresh_cache):
    """MUJOCO_GL is respected, also when it turns drawing off."""
    tried: list[str] = []
    monkeypatch.setattr(render, "try_renderer", lambda name: tried.append(name))
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert render.probe_renderer() == "osmesa" and tried == ["osmesa"]
    monkeypatch.setenv("MUJOCO_GL", "off")
    assert render.probe_renderer() is None and tried == ["osmesa"]


def test_what_was_found_is_remembered_and_what_was_not_is_not(monkeypatch, fresh_cache):
    """A renderer found is kept in the cache file; nothing found is looked for again by the next process."""
    tried: list[str] = []
    answers = dict.fromkeys(render.RENDERERS, "broken")
    monkeypatch.setattr(render, "try_renderer", lambda name: tried.append(name) or answers[name])
    assert render.probe_renderer() is None and tried == list(render.RENDERERS)
    assert not fresh_cache.exists()
    render._probe.cache_clear()  # as in a new process, after a library was installed
    answers[render.RENDERERS[-1]] = None
    assert render.probe_renderer() == render.RENDERERS[-1]
    assert json.loads(fresh_cache.read_text())["renderer"] == render.RENDERERS[-1]
    count = len(tried)
    render._probe.cache_clear()
    assert render.probe_renderer() == render.RENDERERS[-1] and len(tried) == count
    fresh_cache.write_text("{ damaged")
    render._probe.cache_clear()
    assert render.probe_renderer() == render.RENDERERS[-1] and len(tried) > count


def test_a_script_without_a_main_guard_is_not_run_again(renderer, tmp_path):
    """The child is spawned, which usually imports the caller's script once more."""
    script = tmp_path / "script.py"
    script.write_text(
        "import torch\nfrom tasks import registry\nfrom rl.video import record_video\nprint('ran')\n"
        f"task = registry.make({SLIDER!r})\n"
        f"print(record_video(task, lambda o: torch.zeros(len(o), 1), {str(tmp_path / 'v.mp4')!r}, seconds=0.2))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=600, check=True
    )
    assert done.stdout.split() == ["ran", str(tmp_path / "v.mp4")]
