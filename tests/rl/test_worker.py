"""The training as a process: exit codes, and a result in every case. `test_evaluator` has one that goes well."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rl import worker
from rl.record import RESULT, write_request

ROOT = Path(__file__).parents[2]


def start(run_dir: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "rl.worker", str(run_dir)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_result(run_dir: Path) -> dict:
    return json.loads((run_dir / RESULT).read_text())


def test_sigterm_leaves_a_result(make_request, graph, tmp_path):
    write_request(make_request({"iterations": 10_000_000}, reward_graph=graph), tmp_path)
    process = start(tmp_path)
    metrics = tmp_path / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (metrics.exists() and metrics.read_bytes()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=300)
    assert process.returncode == 1
    result = read_result(tmp_path)
    assert (result["status"], result["error"]["type"], result["fitness"]) == ("error", "Terminated", None)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), ("{", "not valid JSON"), ("{}", "request: missing run_id")],
)
def test_a_bad_request(tmp_path, capsys, content, message):
    if content is not None:
        (tmp_path / "request.json").write_text(content)
    assert worker.main([str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / RESULT).exists()


def test_an_unknown_task(make_request, tmp_path):
    result = worker.run(make_request(task="cartpole-balanse"), tmp_path)
    assert result["status"] == "error"
    assert "Did you mean 'cartpole-balance'?" in result["error"]["message"]
    assert read_result(tmp_path) == result


def test_an_error_of_ours_is_a_result_with_a_traceback_beside_it(make_request, tmp_path, monkeypatch, capsys):
    def broken(*args, **kwargs):
        raise ZeroDivisionError("in the middle")

    monkeypatch.setattr("rl.verdicts.evaluate", broken)
    result = worker.run(make_request({"iterations": 1}), tmp_path)
    assert result["status"] == "error"
    assert result["error"] == {"type": "ZeroDivisionError", "message": "in the middle", "line": None}
    assert "Traceback" in (tmp_path / worker.LOG).read_text()
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert read_result(tmp_path) == result


def test_a_renderer_that_fails_does_not_fail_the_training(make_request, tmp_path, monkeypatch):
    video = pytest.importorskip("rl.video")

    def broken(*args, **kwargs):
        raise RuntimeError("no display")

    monkeypatch.setattr(video, "record_video", broken)
    result = worker.run(make_request({"iterations": 1}, video=True), tmp_path)
    assert (result["status"], result["video"]) == ("ok", None)
    assert "no display" in (tmp_path / worker.LOG).read_text()


def test_the_video_is_named_in_the_result(make_request, tmp_path, monkeypatch):
    video = pytest.importorskip("rl.video")
    monkeypatch.setattr(video, "record_video", lambda task, policy, out, **kwargs: out)
    result = worker.run(make_request({"iterations": 1}, video=True), tmp_path)
    assert result["video"] == "video.mp4"
    assert read_result(tmp_path)["video"] == "video.mp4"
