"""`eureka distill`: a whole small one, resumed, added to; and what it refuses in one line."""

from __future__ import annotations

import json

import pytest

from distill.generalist import load_generalist
from distill.train import Watcher, distill
from distill.train_request import read_request
from tests.distill.students import COMMANDS
from tests.distill.teachers import GAINS, PAIR, linear_onnx
from tests.eureka.command_line import SLIDER, assert_one_line

QUICK = ("--preset", "toy", "--objective", "regression", "--rounds", "1", "--steps", "20", "--threads", "1", "--set",
         "episodes=4", "--set", "round_episodes=3", "--set", "batch_size=8", "--set", "bodies.slider.execute=2")  # fmt: skip


@pytest.fixture
def experts(tmp_path) -> dict[str, str]:
    """Task file -> what the command line calls its expert."""
    return {
        task: f"{task}={linear_onnx(tmp_path / f'expert{number}.onnx', gains)}"
        for number, (task, gains) in enumerate(GAINS.items())
    }


def test_a_whole_one_and_a_body_added(eureka, experts, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    out = tmp_path / "first"
    code, printed, err = eureka(
        "distill", experts[SLIDER], experts[COMMANDS], *QUICK, "--out", str(out), "--evaluate", "2"
    )
    assert code == 0, err
    assert "round 1: slider, student and expert in turn: fitness" in err and "step 20/20" in err
    for word in ("round 1 (in turn)", f"generalist: {out}", "slider-commands", "kept", "told (rows), did (columns)"):
        assert word in printed, printed
    config = read_request(out).config
    assert (config.head.width, config.head.objective, config.steps, config.rounds) == (32, "regression", 20, 1)
    assert config.body_of("slider").execute == 2 and load_generalist(out).embodiment("slider").execute == 2

    more = tmp_path / "more"
    code, printed, err = eureka("distill", experts[PAIR], "--add-to", str(out), "--freeze-trunk", *QUICK[4:], "--out",
                                str(more), "--json")  # fmt: skip
    assert code == 0, err
    found = json.loads(printed)
    assert found["folder"] == str(more) and [one["player"] for one in found["plays"]] == ["expert", "both"]
    assert [skill.task for skill in load_generalist(more).skills] == ["slider", "slider-commands", "pair"]


def test_interrupted_it_says_how_to_go_on(eureka, experts, tmp_path, monkeypatch):
    out = tmp_path / "stopped"

    class Stop(Watcher):
        def learning(self, *_):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("eureka.commands.distill.distill", lambda folder, _: distill(folder, Stop()))
        code, _, err = eureka("distill", experts[SLIDER], *QUICK, "--out", str(out))
    assert code == 130 and f"go on with eureka distill --resume {out}" in err
    code, printed, err = eureka("distill", "--resume", str(out), "--evaluate", "0")
    assert code == 0 and f"generalist: {out}" in printed, err
    code, _, err = eureka("distill", "--resume", str(out), "--evaluate", "0")
    assert code == 0 and "is done already" in err


@pytest.mark.parametrize(
    ("words", "hints"),
    [
        ([], ["needs experts"]),
        (["no/such/run"], ["no run or checkpoint no/such/run"]),
        (["slider.onnx"], ["does not say its task"]),
        (["slider=model.pt"], ["expected TASK=policy.onnx"]),
        (["ant-rum=policy.onnx"], ["Did you mean 'ant-run'"]),
        (["ant-run=policy.onnx"], ["no ONNX file policy.onnx"]),
        (["EXPERT", "EXPERT"], ["two experts for task 'slider'"]),
        (["EXPERT", "--minutes", "-1"], ["--minutes is -1"]),
        (["EXPERT", "--minutes", "1", "--steps", "3"], ["give one of them"]),
        (["EXPERT", "--evaluate", "1"], ["--evaluate is 1"]),
        (["EXPERT", "--preset", "tny"], ["Did you mean 'tiny'"]),
        (["EXPERT", "--objective", "flw"], ["head.objective is 'flw'"]),
        (["EXPERT", "--objective", "flow", "--set", "head.objective=flow"], ["given twice"]),
        (["EXPERT", "--set", "bodies.slider.exceute=1"], ["Did you mean 'execute'"]),
        (["EXPERT", "--freeze-trunk"], ["--add-to"]),
        (["EXPERT", "--add-to", "nowhere"], ["expected the folder of a distilled head"]),
        (["--resume", "nowhere"], ["no folder nowhere"]),
        (["--resume", "."], ["distill.json: no such file"]),
        (["--resume", ".", "--rounds", "2"], ["leave experts and settings out"]),
    ],
)
def test_what_is_refused(eureka, experts, tmp_path, monkeypatch, words, hints):
    monkeypatch.chdir(tmp_path)
    words = [experts[SLIDER] if word == "EXPERT" else word for word in words]
    code, _, err = eureka("distill", *words)
    assert_one_line(code, err, *hints)
    assert not (tmp_path / "runs").exists()  # nothing is left that would have to be cleared away


def test_a_folder_holds_one(eureka, experts, tmp_path):
    (tmp_path / "distill.json").write_text("{}")
    code, _, err = eureka("distill", experts[SLIDER], "--out", str(tmp_path))
    assert_one_line(code, err, "holds a distillation already", "--resume")
