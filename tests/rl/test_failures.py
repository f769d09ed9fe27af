"""Failures that are no verdict on a reward: how they are known, and what a worker leaves behind."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import time
from pathlib import Path

import pytest
import torch

from rewards.result import RewardError
from rl import checkpoint, progress, train, worker
from rl.failures import DEVICE_ERROR, DISK_FULL, DISK_FULL_EXIT, OUT_OF_MEMORY, device_failure, infrastructure
from rl.record import RESULT, read_metrics, write_request
from tests.rl.test_worker import read_result, start

FULL = OSError(errno.ENOSPC, "No space left on device")


def caused(error: BaseException, cause: BaseException) -> BaseException:
    """`error`, raised because of `cause`."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FULL, DISK_FULL),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), DISK_FULL),
        (caused(RuntimeError("cannot save"), FULL), DISK_FULL),
        (OSError(errno.EACCES, "Permission denied"), None),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), DEVICE_ERROR),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), DEVICE_ERROR),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), DEVICE_ERROR),
        (RuntimeError("No CUDA GPUs are available"), DEVICE_ERROR),
        (RuntimeError("CUDA unknown error - this may be due to an incorrectly set up environment"), DEVICE_ERROR),
        (RuntimeError("Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU"), DEVICE_ERROR),
        (RuntimeError("CUDA error: device-side assert triggered"), None),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"), OUT_OF_MEMORY),
        (MemoryError(), OUT_OF_MEMORY),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
        (ValueError("CUDA error in a text of somebody else"), None),
    ],
)
def test_failures_are_known(error, kind):
    assert infrastructure(error) == kind
    assert device_failure(caused(RewardError("RuntimeError", "x", 0), error)) == (kind == DEVICE_ERROR)


@pytest.mark.parametrize(
    ("message", "status", "kind"),
    [
        ("CUDA error: unspecified launch failure", "error", DEVICE_ERROR),
        ("CUDA error: device-side assert triggered", "reward_error", "RuntimeError"),
        ("mat1 and mat2 shapes", "reward_error", "RuntimeError"),
    ],
)
def test_a_device_that_fails_while_the_reward_runs_is_no_reward_error(
    make_request, tmp_path, monkeypatch, message, status, kind
):
    """Unless the program itself did it: an index out of bounds fails the same every time."""

    def broken(self):
        raise RewardError("RuntimeError", message, 0) from RuntimeError(message)

    monkeypatch.setattr(train.Training, "_rollout", broken)
    result = worker.run(make_request({"iterations": 1}), tmp_path)
    assert (result["status"], result["error"]["type"]) == (status, kind)
    assert message in read_result(tmp_path)["error"]["message"]


def test_the_result_carries_the_name_of_its_start(make_request, tmp_path):
    assert worker.run(make_request({"iterations": 1}, attempt="a-name"), tmp_path)["attempt"] == "a-name"
    assert worker.run(make_request(task="no-such-task", attempt="a-name"), tmp_path)["attempt"] == "a-name"


def test_progress_moves_in_every_phase(make_request, tmp_path, monkeypatch):
    """A counter, not a time: it goes on through training, evaluation and video, and never stands still in them."""
    written: list[str] = []
    real = os.write

    def write(handle, data):
        if len(data) == progress._WIDTH:
            written.append(data.decode().strip())
        return real(handle, data)

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(progress, "_EVERY_S", 0.0)
    monkeypatch.setattr("rl.video.probe_renderer", lambda: "osmesa")
    monkeypatch.setattr("rl.video._drawn", lambda *_: False)
    result = worker.run(make_request({"iterations": 2, "eval_episodes": 4}, video=True), tmp_path)
    assert result["status"] == "ok"
    phases = [line.split()[0] for line in written]
    assert list(dict.fromkeys(phases)) == ["start", "worlds", "training", "evaluation", "video"]
    # 2 iterations of 10 steps; an episode of 2 s is 40 control steps of 0.05 s
    assert (phases.count("training"), phases.count("evaluation"), phases.count("video")) == (20, 40, 40)
    assert [int(line.split()[1]) for line in written] == list(range(1, len(written) + 1))
    assert progress.read(tmp_path) == written[-1]


def test_progress_is_written_twice_a_second_at_most(tmp_path, monkeypatch):
    progress.start(tmp_path)
    try:
        for _ in range(1000):
            progress.beat("training")
        assert progress.read(tmp_path) == "training 2"
        later = time.monotonic() + 1.0
        monkeypatch.setattr(time, "monotonic", lambda: later)
        progress.beat("training")
        assert progress.read(tmp_path) == "training 1002"
    finally:
        progress.stop()
    progress.beat("training")
    assert progress.read(tmp_path) == "training 1002"


@pytest.mark.parametrize("refused", [(RESULT,), (RESULT, ".pt"), (".pt",)])
def test_a_worker_without_room_says_so_by_its_exit_code(make_request, tmp_path, monkeypatch, capsys, refused):
    """Even when not so much as its result can be written; where it can, it has a status of its own."""

    def write(path: Path, data: bytes) -> None:
        if path.name.endswith(refused):
            raise FULL
        path.write_bytes(data)

    write_request(make_request({"iterations": 1}), tmp_path)
    for module in ("record", "checkpoint"):
        monkeypatch.setattr(f"rl.{module}.write_atomic", write)
    assert worker.main([str(tmp_path)]) == DISK_FULL_EXIT
    assert "the disk is full" in capsys.readouterr().err
    assert (tmp_path / RESULT).exists() == (RESULT not in refused)
    if RESULT not in refused:
        result = read_result(tmp_path)
        assert (result["status"], result["error"]["type"], result["fitness"]) == ("disk_full", DISK_FULL, None)


def test_a_disk_that_fills_while_a_worker_trains(make_request, graph, tmp_path):
    """On a real file system: exit code 3, and the checkpoint from before is whole and can be resumed from."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"nothing can be mounted here ({done.stderr.strip()})")
    try:
        run_dir = place / "run"
        request = make_request({"iterations": 10_000_000, "save_interval": 3}, reward_graph=graph)
        write_request(request, run_dir)
        process = start(run_dir)
        deadline = time.monotonic() + 300
        while not list(run_dir.glob("model_*.json")) and time.monotonic() < deadline:
            time.sleep(0.05)
        with (place / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
            while ballast.write(bytes(256)):
                pass
        _, err = process.communicate(timeout=600)
        assert process.returncode == DISK_FULL_EXIT
        assert f"{run_dir}: the disk is full" in err
        assert not list(run_dir.glob(".*.part"))
        sound = checkpoint.latest(run_dir, lambda line: pytest.fail(f"damaged: {line}"))
        assert sound is not None
        (place / "ballast").unlink()
        iteration = checkpoint.read_meta(sound)["iteration"]
        shorter = make_request({"iterations": iteration + 1, "save_interval": 3})
        result = train.train(shorter, run_dir, resume=True)
        assert (result["status"], result["iterations"]) == ("ok", iteration + 1)
        assert [line["iteration"] for line in read_metrics(run_dir / "metrics.jsonl")][-1] == iteration + 1
        assert json.loads((run_dir / RESULT).read_text())["status"] == "ok"
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
