"""The GPU benchmark at toy size on Warp's CPU device, and without the device it asks for."""

from __future__ import annotations

import json

import pytest
import torch

pytest.importorskip("mujoco_warp", reason="needs the extra gpu: pip install 'eureka-skills[gpu]'")

from benchmarks import gpu

WORDS = ["--tasks", "cartpole-balance", "--num-envs", "8", "--seconds", "0.1"]


def test_it_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "EVAL_EPISODES", 2)
    words = [*WORDS, "--device", "cpu", "--goal", "0.0", "--limit", "5", "--out", str(tmp_path / "gpu.json")]
    assert gpu.main(words) == 0
    told = json.loads((tmp_path / "gpu.json").read_text())
    (line,) = told["lines"]
    assert told["device"] == "cpu" and line["task"] == "cartpole-balance" and line["num_envs"] == 8
    assert line["env_steps_per_s"] > line["train_steps_per_s"] > 0
    assert 0 < line["physics_share"] <= 1 and line["lost_worlds"] == 0 and 0 < line["seconds_to_goal"] < 5
    assert f"| cartpole-balance | 8 | {line['env_steps_per_s']:,.0f} |" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_the_device_nothing_is_claimed(capsys):
    assert gpu.main(WORDS) == 1
    out, err = capsys.readouterr()
    assert "| cartpole-balance | 8 | not measured | not measured | not measured | not measured |" in out
    assert "finds no CUDA device" in err and "Traceback" not in err
