"""The command line: `evaluate`, `play` and `export` of a generalist, one that knows nothing yet."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from imageio_ffmpeg import read_frames

from distill.batch import Observation
from distill.experts import load_checkpoint_expert
from distill.generalist import load_generalist, save_generalist
from distill.told import FELL
from eureka import cli
from eureka.report_text import format_number
from rl import render
from tasks.env import make_env
from tests.distill.students import untrained
from tests.eureka.command_line import SLIDER, assert_one_line


@pytest.fixture(scope="module")
def expert(tmp_path_factory) -> Path:
    """A training by `eureka train`."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert cli.main(["train", SLIDER, "--iterations", "2", "--out", str(folder), "--json"]) == 0
    return folder


@pytest.fixture(scope="module")
def generalist(tmp_path_factory, expert) -> Path:
    """A generalist that was taught two tasks; the expert of the second is not known."""
    folder = tmp_path_factory.mktemp("distilled") / "mass"
    made = untrained()
    taught = load_checkpoint_expert(expert / "model_000002.pt")
    first = dataclasses.replace(made.skills[0], expert=str(taught.path), expert_sha256=taught.sha256)
    save_generalist(dataclasses.replace(made, skills=(first, made.skills[1])), folder)
    return folder


def test_evaluate_tells_what_was_kept_and_what_was_done(eureka, generalist, expert):
    code, out, err = eureka("evaluate", generalist, "--episodes", 6, "--threads", 1, "--json")
    found = json.loads(out)
    assert code == 0 and "slider-commands: it is not known who its expert was" in err
    slider, commands = found["skills"]
    code, alone, _ = eureka("evaluate", expert, "--episodes", 6, "--threads", 1, "--json")
    assert slider["runs"]["expert"]["per_episode"] == pytest.approx(json.loads(alone)["per_episode"])
    assert slider["kept"]["low"] <= slider["kept"]["value"] <= slider["kept"]["high"]
    assert commands["kept"] is None and "expert" not in commands["runs"]
    for who in ("student", "student, held-out words", "nothing"):
        obeyed = commands["runs"][who]["obeyed"]
        assert sum(map(sum, obeyed["matrix"])) == sum(of_all for _, of_all in obeyed["phrases"].values()) > 0
    assert json.loads((generalist / "evaluation.json").read_text()) == found


def test_evaluate_prints_tables(eureka, generalist, expert, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    words = ["--episodes", 4, "--threads", 1, "--task", "slider-commands", "--prices"]
    code, out, _ = eureka("evaluate", generalist / "head.json", *words)
    assert code == 0 and "1 tasks, 4 episodes each" in out
    lines = [line.split() for line in out.splitlines()]
    assert ["right", "left", "hold", FELL] in lines, "the matrix's columns"
    assert sum(line[:1] == ["slider-commands"] for line in lines) == 1 + 5, "and execute 1, 2, 4 and Euler steps 1, 2"
    code, out, err = eureka("evaluate", generalist, *words[:-2], "slider", "--expert", f"slider={expert}", "--json")
    assert code == 0 and not err and json.loads(out)["skills"][0]["kept"] is not None


def test_the_page_says_what_the_evaluation_found(eureka, generalist, expert):
    """Every figure of evaluation.json's table and matrices, in one file without links."""
    assert eureka("evaluate", generalist, "--episodes", 4, "--threads", 1)[0] == 0
    found = json.loads((generalist / "evaluation.json").read_text())
    (generalist / "metrics.jsonl").write_text(
        "".join(json.dumps({"iteration": n, "loss": 1 / n, "loss/mass": 2 / n}) + "\n" for n in range(1, 9))
    )
    (generalist / "play.mp4").write_bytes(b"a video")
    code, out, _ = eureka("report", generalist)
    page = Path(out.strip()).read_text()
    assert code == 0 and "http" not in page.replace("http-equiv", "") and "data:video/mp4;base64,YSB2aWRlbw==" in page
    slider, commands = found["skills"]
    kept = [format_number(slider["kept"][name]) for name in ("value", "low", "high")]
    assert f"<td>{kept[0]} [{kept[1]}, {kept[2]}]</td>" in page
    for who in ("student", "student, held-out words"):
        for row in commands["runs"][who]["obeyed"]["matrix"]:
            cells = "".join(f".*?<span>{count or ''}</span>" for count in row)
            assert re.search(cells, page), row
    assert f"loss, mean of the bodies over training: from {format_number(1.0)} to {format_number(0.125)}" in page


def test_another_expert_than_the_one_that_taught_is_not_taken_in_silence(eureka, generalist, expert, tmp_path):
    loaded = load_generalist(generalist)
    skill = dataclasses.replace(loaded.skills[0], expert_sha256="0" * 64)
    save_generalist(dataclasses.replace(loaded, skills=(skill,)), tmp_path / "other")
    code, out, err = eureka("evaluate", "other", "--episodes", 2, "--json")
    assert code == 0 and "is not the expert that taught it" in " ".join(err.split())
    assert json.loads(out)["skills"][0]["kept"] is None


def test_play_films_all_tasks_side_by_side(eureka, generalist):
    if render.probe_renderer() is None:
        pytest.skip(render.no_renderer_line())
    code, out, _ = eureka("play", generalist, "--out", "grid.mp4", "--seconds", "0.2", "--width", 64, "--height", 48)
    assert code == 0 and "grid.mp4" in out
    frames = read_frames("grid.mp4")
    assert next(frames)["size"] == (128, 48 + 34)
    shown = [np.frombuffer(frame, np.uint8).reshape(82, 128, 3) for frame in frames]
    assert len(shown) == 5
    for cell in (shown[0][:48, :64], shown[0][:48, 64:]):
        assert len(np.unique(cell.reshape(-1, 3), axis=0)) > 50, "both are drawn"
    assert (shown[0][48:] < 128).any(axis=(0, 2))[:64].any() and (shown[0][48:] > 240).mean() > 0.5, "ink on paper"


def test_play_says_other_words(eureka, generalist, monkeypatch):
    heard = []
    monkeypatch.setattr("eureka.commands.generalists.record_grid", lambda cells, out, **_: heard.extend(cells))
    words = ["--task", "slider-commands", "--say", "stop now"]
    assert eureka("play", generalist, *words)[0] == 0
    env = make_env(heard[0].task, 1, num_threads=1)
    assert heard[0].caption(env) == "slider-commands\nstop now"
    own = load_generalist(generalist).actor(heard[0].task, words=lambda env: ["stop now"])
    assert torch.equal(heard[0].player.act(env), own.act(env))


def test_export_writes_each_body_and_its_words(eureka, generalist):
    code, out, _ = eureka("export", generalist, "--out", "onnx", "--euler-steps", 1, "--json")
    report = json.loads(out)
    assert code == 0 and [body["embodiment"] for body in report["bodies"]] == ["mass"]
    assert report["bodies"][0]["max_abs_diff"] <= 1e-5
    words = np.load("onnx/contexts.npz")
    place = list(words["phrases"]).index("slide left")
    assert len(words["phrases"]) == report["phrases"] == 1 + 3 * 8
    # The whole way on a robot, without us, against ours.
    session = onnxruntime.InferenceSession("onnx/mass.onnx")
    state, noise = np.array([[[0.3, -0.2]]], np.float32), np.zeros((1, 4, 1), np.float32)
    context, mask = words["tokens"][place : place + 1], words["mask"][place : place + 1]
    inputs = {"state": state, "context": context, "context_mask": mask, "noise": noise}
    (chunk,) = session.run(["actions"], inputs)
    loaded = load_generalist(generalist)
    with torch.no_grad():
        tokens, valid = loaded.context_encoder()(["slide left"])
        seen = Observation(torch.from_numpy(state), tokens, valid)
        ours = loaded.head.sample("mass", seen, noise=torch.zeros(1, 4, 1), steps=1)
    np.testing.assert_allclose(chunk, ours.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evaluate", "--task", "slidr"], ["was not taught 'slidr'", "Did you mean 'slider'?"]),
        (["evaluate", "--episodes", 1], ["episodes is 1"]),
        (["evaluate", "--execute", 9, "--episodes", 2], ["execute is 9, expected 1 to 4"]),
        (["evaluate", "--expert", "slider"], ["--expert slider: expected TASK=RUN"]),
        (["evaluate", "--expert", "slider=gone"], ["no run or checkpoint gone"]),
        (["play", "--say", "stop"], ["--say needs one --task"]),
        (["play", "--viewer"], ["--viewer shows one task"]),
    ],
)
def test_what_cannot_work_gives_one_line(eureka, generalist, words, said):
    code, _, err = eureka(words[0], generalist, *words[1:])
    assert_one_line(code, err, *said)


def test_options_of_a_generalist_are_refused_for_a_policy_of_one_task(eureka, expert):
    for words, flag in ((["evaluate", "--prices"], "--prices"), (["play", "--execute", 2], "--execute"),
                        (["export", "--task", "slider"], "--task")):  # fmt: skip
        code, _, err = eureka(words[0], expert, *words[1:])
        assert_one_line(code, err, f"{flag} is for a generalist")


def test_a_damaged_generalist_is_named(eureka, generalist, tmp_path):
    (tmp_path / "broken").mkdir()
    for name in ("head.pt", "head.json"):
        (tmp_path / "broken" / name).write_bytes((generalist / name).read_bytes()[:-20])
    for command in ("evaluate", "play", "export"):
        assert_one_line(*eureka(command, "broken")[::2], "broken/head.json")
