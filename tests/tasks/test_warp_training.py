"""A training, a search's request and an evaluation on the Warp backend (its CPU device): nothing above knows of it."""

from __future__ import annotations

import json

import pytest
import torch

pytest.importorskip("mujoco_warp", reason="needs the extra gpu: pip install 'eureka-skills[gpu]'")

from eureka.cli import main
from rl import train as train_module
from rl.record import METRICS, read_request
from tasks.env import make_env
from tasks.errors import UserError
from tasks.sim_warp import WarpSimulation
from tasks.subset import ChosenWorlds
from tests.tasks.toy_tasks import Slider

TINY = ["--num-envs", "16", "--iterations", "2", "--set", "eval_episodes=2", "--threads", "1"]
WARP = ["--backend", "warp", "--device", "cpu"]


def test_train_and_evaluate_from_the_command_line(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", "cartpole-balance", *TINY, *WARP, "--out", str(run), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["status"] == "ok" and result["fitness"] > 0
    request = read_request(run)
    assert (request.backend, request.device, request.randomize) == ("warp", "cpu", False)
    lines = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
    assert len(lines) == 2 and not any("overflow" in line for line in lines)

    fitness = {}
    for backend in ([], WARP):
        assert main(["evaluate", str(run), "--episodes", "4", "--threads", "1", *backend, "--json"]) == 0
        fitness[len(backend)] = json.loads(capsys.readouterr().out)["fitness"]
    assert fitness[0] == pytest.approx(fitness[len(WARP)], rel=0.5)


def test_bad_words_are_refused_in_one_line(tmp_path, capsys):
    for words, line in (
        (["--backend", "wrap"], "Did you mean 'warp'?"),
        (["--device", "cuda"], "use device 'cpu', or --backend warp"),
        (["--randomize"], "has no randomize table"),
    ):
        assert main(["train", "cartpole-balance", *TINY, *words, "--out", str(tmp_path / words[-1])]) != 0
        err = capsys.readouterr().err
        assert line in err and "Traceback" not in err
        assert not (tmp_path / words[-1]).exists(), "a request that was refused is in the way of the next"
    if not torch.cuda.is_available():
        words = ["train", "cartpole-balance", *TINY, "--backend", "warp", "--out", str(tmp_path / "gpu")]
        assert main(words) != 0 and "finds no CUDA device" in capsys.readouterr().err
        assert not (tmp_path / "gpu").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
@pytest.mark.parametrize("more", [[], ["--population"]])
def test_a_search_without_its_device_asks_for_nothing(more, tmp_path, capsys):
    """Not one reply is paid for, and no folder is made."""
    out = tmp_path / "search"
    small = ["-k", "1", "-n", "1", "--final-seeds", "0", "--iterations", "1", "--num-envs", "8", "--no-video"]
    words = ["search", "cartpole-balance", "--designer", "evolution", *small, "--backend", "warp", *more]
    assert main([*words, "--out", str(out)]) == 2
    err = capsys.readouterr().err
    assert "torch finds no CUDA device for 'cuda'" in err and "Traceback" not in err
    assert not out.exists()


def test_lost_contacts_stand_in_the_metrics(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(WarpSimulation, "collect_overflows", lambda self: {"nefc": 3})
    run = tmp_path / "run"
    assert main(["train", "cartpole-balance", *TINY, *WARP, "--out", str(run)]) == 0
    lines = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
    assert [line["overflow"] for line in lines] == [{"nefc": 3}] * 2
    assert "contacts were left out in 3 worlds (nefc)" in capsys.readouterr().err
    assert train_module.make_env is make_env


def test_both_backends_play_the_same_episodes_until_one_ends():
    native = make_env(Slider(), 6, seed=2, num_threads=1)
    warp = make_env(Slider(), 6, seed=2, backend="warp", device="cpu")
    assert warp.sim.asynchronous and not native.sim.asynchronous
    for step in range(18):
        actions = torch.rand(6, 1, generator=torch.Generator().manual_seed(step)) * 2 - 1
        a, b = native.step(actions), warp.step(actions)
        torch.testing.assert_close(a.observation, b.observation, atol=1e-5, rtol=0)
        assert torch.equal(a.done, b.done) and not a.done.any()


def test_worlds_that_end_start_anew_and_only_they():
    """Episodes end by a failure in some worlds and by their time in the others."""
    env = make_env(Slider(), 6, seed=2, backend="warp", device="cpu")
    far = torch.tensor([0, 3])
    env.sim.set_state(far, torch.full((2, 1), 0.99), torch.full((2, 1), 5.0))
    before = env.sim.qpos
    step = env.step(torch.full((6, 1), 0.5))
    assert step.terminated.tolist() == [True, False, False, True, False, False]
    assert (step.signals["position"][far] > 1.0).all(), "the state that was reached, before any reset"
    assert (step.observation[far, 0].abs() <= 0.1).all() and (env.sim.qpos[far].abs() <= 0.1).all()
    others = [1, 2, 4, 5]
    assert (env.sim.qpos[others] - before[others]).abs().max() < 0.01
    assert env.episode_step.tolist() == [0, 1, 1, 0, 1, 1]
    assert env.sim.memory["actions"][:, 0].tolist() == [0.0, 0.5, 0.5, 0.0, 0.5, 0.5]
    for _ in range(18):
        step = env.step(torch.zeros(6, 1))
        assert not step.done.any()
    step = env.step(torch.zeros(6, 1))
    assert step.truncated.tolist() == [False, True, True, False, True, True]
    assert env.episode_step.tolist() == [19, 0, 0, 19, 0, 0]


def test_chosen_worlds_may_be_changed_the_others_not():
    env = make_env(Slider(), 4, seed=0, num_threads=1)
    env.sim.memory["goal"] = goal = torch.zeros(4, 2)
    chosen = torch.tensor([False, True, True, False])
    worlds = ChosenWorlds(env.sim, chosen)
    before = env.sim.qpos
    worlds.memory["goal"] = goal.index_fill(0, torch.arange(4), 1.0)
    worlds.set_state(torch.tensor([3, 2, 1]), torch.tensor([[0.3], [0.2], [0.1]]), torch.zeros(3, 1))
    worlds.settle()
    assert env.sim.memory["goal"][:, 0].tolist() == [0.0, 1.0, 1.0, 0.0]
    assert torch.equal(env.sim.qpos[:, 0], torch.tensor([before[0, 0], 0.1, 0.2, before[3, 0]]))
    assert worlds.num_envs == 4 and worlds.model is env.sim.model


def test_without_the_extra_one_line_says_what_to_install(monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mujoco_warp" else found(name))
    with pytest.raises(UserError, match=r"needs mujoco_warp, not installed here: pip install 'eureka-skills\[gpu\]'"):
        make_env(Slider(), 1, backend="warp", device="cpu")
