"""Whole distillations of masses on rails: the same again, killed and resumed, with a body added, with bad input."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from distill.batch import Observation
from distill.checkpoint import WEIGHTS
from distill.dagger import round_folder
from distill.evaluate import Measure, evaluate_skill
from distill.generalist import load_generalist
from distill.pace import PACE, find_pace
from distill.train import DATA, RESULT, Distillation, Watcher, distill, read_plays
from distill.train_request import REQUEST, read_request, weights_digest
from rl.record import read_metrics
from tasks.errors import UserError
from tests.distill.conftest import draw
from tests.distill.students import COMMANDS, as_commanded, to_the_middle
from tests.distill.teachers import PAIR, ask, linear_onnx, tiny_config
from tests.eureka.command_line import ROOT, SLIDER

MEASURE = Measure(episodes=24, num_threads=1)
FEW = {"batch_size": 16, "rounds": 2, "episodes": 6, "round_episodes": 4}
SHORT = tiny_config(**FEW, steps=200, clone_share=0.3, save_steps=20)
QUICK = tiny_config(**{**FEW, "rounds": 1}, steps=30, save_steps=10)


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()


def chunks(generalist, body: str) -> torch.Tensor:
    """What a body does in some states."""
    it = generalist.head.table[body]
    context, mask = generalist.encoder(["bring the mass to the middle of the rail and keep it there"])
    states = torch.randn(16, it.history, it.state_size, generator=draw(0))
    return generalist.head.sample(body, Observation(states, context, mask), generator=draw(1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A distillation of two tasks of one body, done."""
    place = ask(tmp_path_factory.mktemp("distill") / "both", (SLIDER, COMMANDS))
    distill(place)
    return place


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> Path:
    """The same of 200 steps on few samples, which is not good at anything."""
    place = ask(tmp_path_factory.mktemp("distill") / "short", (SLIDER, COMMANDS), SHORT)
    distill(place)
    return place


def test_what_it_leaves(folder):
    generalist = load_generalist(folder)
    assert [(s.task, s.embodiment) for s in generalist.skills] == [("slider", "slider"), ("slider-commands", "slider")]
    assert generalist.skills[0].expert_sha256 == read_request(folder).experts[0].sha256
    it = generalist.head.table["slider"]
    assert (it.state_size, it.action_size, it.horizon, it.execute, it.control_dt_s) == (2, 1, 4, 2, 0.05)
    plays = read_plays(folder)
    assert [(p.round, p.player) for p in plays[:6:2]] == [(0, "expert"), (1, "both"), (2, "student")]
    metrics = read_metrics(folder / "metrics.jsonl")
    assert [line["iteration"] for line in metrics] == list(range(20, 401, 20))
    assert metrics[-1]["loss"] < 0.5 * metrics[0]["loss"] and metrics[-1]["loss/slider"] == metrics[-1]["loss"]
    assert sorted(p.name for p in folder.glob("state_*.pt")) == ["state_000320.pt", "state_000400.pt"]


@pytest.mark.parametrize(("task", "expert"), [("slider", to_the_middle), ("slider-commands", as_commanded)])
def test_the_student_does_what_its_experts_do(folder, task, expert):
    report = evaluate_skill(load_generalist(folder), task, expert, MEASURE)
    assert report.kept.value > 0.8  # seeds of this training: 0.997 and 0.865
    if task == "slider-commands":
        assert report.runs["student"].obeyed.share > 0.9


def test_the_same_seed_gives_the_same_student_bit_for_bit_also_with_more_threads(short, tmp_path):
    config = dataclasses.replace(SHORT, threads=2)
    again = ask(tmp_path / "again", (SLIDER, COMMANDS), config)
    distill(again)
    states = [torch.load(place / "state_000200.pt", weights_only=True) for place in (short, again)]
    for part in ("head", "encoder"):
        assert all(torch.equal(states[0][part][name], states[1][part][name]) for name in states[0][part])
    heads = [load_generalist(place).head.state_dict() for place in (short, again)]
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in heads[0])
    other = ask(tmp_path / "other", (SLIDER,), dataclasses.replace(QUICK, seed=1))
    same = ask(tmp_path / "same", (SLIDER,), QUICK)
    assert not torch.equal(chunks(distill(other), "slider"), chunks(distill(same), "slider"))


CHILD = "import sys; from pathlib import Path; from distill.train import distill; distill(Path(sys.argv[1]))"


def killed_when(folder: Path, reached) -> None:
    """Go on with a distillation in a process of its own, and kill it as soon as it has got so far."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(folder)], env=environment)
    until = time.monotonic() + 300
    try:
        while not reached():
            assert child.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < until, "it does not get so far"
            time.sleep(0.002)
    finally:
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL


def test_killed_twice_it_ends_as_if_undisturbed(short, tmp_path):
    """Killed while the student plays, and while it learns."""
    killed = ask(tmp_path / "killed", (SLIDER, COMMANDS), SHORT)
    data = killed / DATA
    killed_when(killed, (data / "slider" / "round_01" / "meta" / "info.json").exists)
    assert (killed / "state_000060.json").exists() and not (killed / "state_000080.json").exists()
    killed_when(killed, (killed / "state_000180.json").exists)
    assert not (killed / RESULT).exists()
    distill(killed)
    assert digest(killed) == digest(short)
    assert read_plays(killed) == read_plays(short)
    steps = [line["iteration"] for line in read_metrics(killed / "metrics.jsonl")]
    assert steps == [line["iteration"] for line in read_metrics(short / "metrics.jsonl")]


def test_a_damaged_state_is_passed_over_and_said(tmp_path):
    quick = ask(tmp_path / "quick", (SLIDER,), QUICK)
    distill(quick)
    expected = digest(quick)
    (quick / RESULT).unlink()
    newest = quick / "state_000030.pt"
    flipped = bytearray(newest.read_bytes())
    flipped[len(flipped) // 2] ^= 1  # one bit, among the weights
    newest.write_bytes(flipped)
    said: list[str] = []
    watcher = Watcher()
    watcher.say = said.append  # type: ignore[method-assign]
    distill(quick, watcher)
    assert digest(quick) == expected and len(said) == 1 and ": damaged (" in said[0] and "passed over" in said[0]
    (quick / RESULT).unlink()
    for path in quick.glob("state_*.pt"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="no sound state before it; start anew"):
        distill(quick)


def test_a_body_is_added_and_the_others_stay_bit_for_bit(folder, tmp_path):
    before = load_generalist(folder)
    place = ask(tmp_path / "more", (PAIR,), tiny_config(steps=500, learning_rate=1e-2), add_to=str(folder), add_to_sha256=weights_digest(folder),
                freeze_trunk=True)  # fmt: skip
    after = distill(place)
    assert [skill.task for skill in after.skills] == ["slider", "slider-commands", "pair"]
    assert torch.equal(chunks(before, "slider"), chunks(after, "slider"))
    assert torch.equal(chunks(after, "slider"), chunks(load_generalist(place), "slider"))
    report = evaluate_skill(
        load_generalist(place), "pair", lambda seen: -2.0 * seen[:, :2] - 1.5 * seen[:, 2:], MEASURE
    )
    assert report.kept.value > 0.8
    # What was there is not overwritten.
    assert weights_digest(folder) == read_request(place).add_to_sha256


def test_with_the_trunk_in_training_the_words_are_learnt_as_well(folder, tmp_path):
    place = ask(tmp_path / "more", (PAIR,), QUICK, add_to=str(folder), add_to_sha256=weights_digest(folder))
    before, after = load_generalist(folder), distill(place)
    assert not torch.equal(before.head.trunk.modulation.weight, after.head.trunk.modulation.weight)
    assert not torch.equal(before.encoder.pieces.weight, after.encoder.pieces.weight)
    own = [(name, value) for name, value in before.head.state_dict().items() if name.startswith("adapters.slider")]
    assert own and all(torch.equal(value, after.head.state_dict()[name]) for name, value in own)


@pytest.fixture
def stopped(tmp_path):
    """A distillation that was stopped after the experts had played."""
    place = ask(tmp_path / "stopped", (SLIDER,), QUICK)

    class Stop(Watcher):
        def learning(self, *_):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(place, Stop())
    return place


def test_minutes_become_steps_once(stopped):
    """As many as fit beside the rounds; measured on a copy; an earlier start's number stays."""
    began = Distillation(read_request(stopped), stopped, Watcher())
    began._play(0)
    learner = began._make_learner()
    before = {name: value.clone() for name, value in learner.head.state_dict().items()}
    given = (learner, began._loader(learner, 0).next_batch, {"slider/slider": began.experts["slider"]}, QUICK, 1)
    with pytest.raises(UserError, match="give more minutes, or fewer rounds"):
        find_pace(stopped, 1e-3, *given)
    pace = find_pace(stopped, 1000.0, *given)
    assert pace.steps == int((1000.0 - QUICK.rounds * pace.round_s) / pace.step_s) > 0
    assert pace.step_s > 0 and pace.round_s > 0
    assert find_pace(stopped, 5.0, *given) == pace
    assert learner.steps == 0 and all(torch.equal(v, before[n]) for n, v in learner.head.state_dict().items())


def test_the_steps_of_the_minutes_are_those_of_the_first_start(tmp_path):
    place = ask(tmp_path / "timed", (SLIDER,), dataclasses.replace(QUICK, steps=10**6), minutes=5.0)
    (place / PACE).write_text(json.dumps({"steps": 17, "step_s": 1.0, "round_s": 1.0, "left_s": 20.0}))
    distill(place)
    assert json.loads((place / RESULT).read_text())["steps"] == 17
    same = ask(tmp_path / "same", (SLIDER,), dataclasses.replace(QUICK, steps=17))
    distill(same)
    assert torch.equal(chunks(load_generalist(same), "slider"), chunks(load_generalist(place), "slider"))


def another_expert(place):
    linear_onnx(place.parent / "experts" / "slider.onnx", [[-1.0], [-1.0]])


def no_expert(place):
    (place.parent / "experts" / "slider.onnx").unlink()


def data_of_another_body(place):
    distill(ask(place.parent / "pair", (PAIR,), QUICK))
    mine = round_folder(place / DATA, "slider", 0)
    shutil.rmtree(mine)
    shutil.copytree(round_folder(place.parent / "pair" / DATA, "pair", 0), mine)


def no_data(place):
    shutil.rmtree(round_folder(place / DATA, "slider", 0))


def torn_data(place):
    file = next(round_folder(place / DATA, "slider", 0).glob("data/*/*.parquet"))
    file.write_bytes(file.read_bytes()[:200])


def torn_request(place):
    (place / REQUEST).write_text((place / REQUEST).read_text()[:100])


def foreign_request(place):
    (place / REQUEST).write_text('{"schema": 1}')


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (another_expert, ("another expert than the one",)),
        (no_expert, ("no ONNX file", "slider.onnx")),
        (data_of_another_body, ("its observations have 4 numbers", "'slider' 2", "of 'pair'")),
        (no_data, ("is gone; start the distillation anew",)),
        (torn_data, ("parquet",)),
        (torn_request, ("not valid JSON",)),
        (foreign_request, ("missing experts",)),
    ],
)
def test_what_is_not_as_it_was_is_said_in_one_line(stopped, damage, words):
    damage(stopped)
    with pytest.raises(UserError) as caught:
        distill(stopped)
    text = str(caught.value)
    assert "\n" not in text and all(word in text for word in words), text


def test_what_cannot_be_asked_for(short, tmp_path):
    digest = weights_digest(short)
    for number, (tasks, options, words) in enumerate(
        [
            ((), {}, "at least one expert"),
            ((SLIDER,), {"freeze_trunk": True}, "say which one by --add-to"),
            ((SLIDER, SLIDER), {}, "two experts for task 'slider'"),
            ((SLIDER,), {"add_to": str(short), "add_to_sha256": digest, "freeze_trunk": True}, "only new bodies"),
            ((PAIR,), {"add_to": str(short), "add_to_sha256": "other"}, "is not what it was"),
            ((PAIR,), {"add_to": str(tmp_path), "add_to_sha256": digest}, "expected the folder of a distilled head"),
            ((PAIR,), {"minutes": -1.0}, "a number of minutes, or 0"),
        ]
    ):
        with pytest.raises(UserError, match=words):
            distill(ask(tmp_path / f"case{number}", tasks, QUICK, **options))
    with pytest.raises(UserError, match="holds a distillation already; go on with --resume"):
        ask(short, (SLIDER,))
